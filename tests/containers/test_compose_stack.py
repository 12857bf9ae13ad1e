"""What a user sees of `docker compose up --scale worker=4`, and what the containers may and may not do."""

import json
import os
import time
from pathlib import Path

import pytest
from container_harness import ROOT, Compose, docker, fetch, image_id, inspect, wait_for

pytestmark = [pytest.mark.containers, pytest.mark.xdist_group("containers"), pytest.mark.timeout(300, func_only=True)]


def test_the_endpoints_answer_from_outside(stack: Compose) -> None:
    health = stack.get("/health").json
    assert (health["status"], health["jobs_dir"], health["workers"]) == ("ok", True, 4)
    assert stack.get("/jobs/count").json == {"num_jobs": 5}
    stack.check_complete(5)


def test_a_file_is_served_as_it_lies_in_the_folder(stack: Compose) -> None:
    on_disk = (stack.outputs / "job_1.csv").read_bytes()
    assert stack.get("/outputs/job_1.csv").body == on_disk
    assert on_disk.startswith(b"numbers,sum,mean\r\n")


def test_a_batch_names_the_image_that_accepted_it(stack: Compose, image: str) -> None:
    assert json.loads((stack.outputs / "batch.json").read_text())["environment"]["image"] == image_id(image)


def test_a_folder_that_docker_made_is_handed_over(stack: Compose) -> None:
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (stack.outputs, *stack.outputs.iterdir())}
    assert owners == {(1000, 1000)}


def test_flower_asks_for_the_password_and_lists_tasks(stack: Compose) -> None:
    assert wait_for(lambda: stack.flower("/").status, bool, 30, "Flower answers") == 401
    assert stack.flower("/", "wrong").status == 401
    assert stack.flower("/", stack.flower_password).status == 200
    stack.wait_completed(stack.rerun())
    wait_for(
        lambda: [task["name"] for task in stack.flower("/api/tasks", stack.flower_password).json.values()],
        lambda names: names.count("batchsim.run_range") >= 5,
        30,
        "Flower lists the five tasks",
    )


def test_flower_changes_nothing(stack: Compose) -> None:
    workers = wait_for(
        lambda: stack.flower("/api/workers?refresh=1", stack.flower_password).json, bool, 30, "Flower knows the workers"
    )
    url = f"http://127.0.0.1:{stack.flower_port}/api/worker/shutdown/{next(iter(workers))}"
    assert fetch(url, user=f"batchsim:{stack.flower_password}", method="POST").status in (401, 403, 404, 405)
    stack.wait_healthy(workers=4)


def test_only_the_api_and_flower_are_published_and_on_loopback(stack: Compose) -> None:
    bindings = {
        inspect(identity)["Config"]["Labels"]["com.docker.compose.service"]: [
            binding["HostIp"]
            for found in inspect(identity)["NetworkSettings"]["Ports"].values()
            for binding in found or []
        ]
        for identity in stack.containers()
    }
    assert bindings == {"api": ["127.0.0.1"], "flower": ["127.0.0.1"], "worker": [], "redis": []}


def test_no_container_has_privileges(stack: Compose) -> None:
    for identity in stack.containers():
        seen = inspect(identity)
        status = docker("exec", identity, "cat", "/proc/1/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["1000"] * 4, seen["Name"]
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, seen["Name"]
        assert fields["NoNewPrivs"] == "1", seen["Name"]
        assert seen["HostConfig"]["ReadonlyRootfs"], seen["Name"]
        assert seen["HostConfig"]["Memory"] > 0, seen["Name"]
        assert docker("exec", identity, "touch", "/file", check=False).returncode != 0, seen["Name"]


def test_redis_asks_for_the_password_and_keeps_it_off_command_lines(stack: Compose) -> None:
    [redis] = stack.containers("redis")
    assert "NOAUTH" in docker("exec", redis, "redis-cli", "ping").stdout
    assert stack.redis_password not in json.dumps([inspect(redis)["Config"]["Cmd"], inspect(redis)["Args"]])
    assert stack.redis_password not in docker("top", redis, "-eo", "pid,args").stdout


def test_no_secret_in_image_or_logs(stack: Compose, image: str) -> None:
    told = docker("image", "inspect", image).stdout + docker("history", "--no-trunc", image).stdout
    said = stack.compose("logs", "--no-color").stdout
    for secret in (stack.redis_password, stack.flower_password):
        assert secret not in told
        assert secret not in said
    assert not [line for line in inspect(image)["Config"]["Env"] if "PASSWORD" in line or "TOKEN" in line]
    assert docker("run", "--rm", image, "find", "/app", "/opt/venv", "-name", ".env*").stdout == ""


def test_health_tells_of_a_redis_that_hangs_and_of_its_return(stack: Compose) -> None:
    """The worker's own health check tells of it as well, and the API stays up."""
    [redis], worker = stack.containers("redis"), stack.containers("worker")[0]
    docker("pause", redis)
    try:
        answers = []
        for _ in range(10):
            begin = time.monotonic()
            assert stack.get("/health").status == 503
            answers.append(time.monotonic() - begin)
        # The best of ten, for this machine may be busy.
        assert min(answers) < 1.0
        assert stack.get("/health/live").status == 200
        check = ["exec", worker, "python", "-m", "services.worker", "health"]
        wait_for(lambda: docker(*check, check=False), lambda done: done.returncode == 1, 40, "the worker is unhealthy")
    finally:
        docker("unpause", redis)
    stack.wait_healthy(workers=4)
    wait_for(lambda: docker(*check, check=False), lambda done: done.returncode == 0, 40, "the worker is healthy")


def test_all_containers_become_healthy(stack: Compose) -> None:
    def states() -> set[str]:
        return {inspect(identity)["State"]["Health"]["Status"] for identity in stack.containers()}

    wait_for(states, lambda seen: seen == {"healthy"}, 60, "all containers healthy", stack.logs)


def test_down_leaves_only_volumes_and_outputs(stack: Compose) -> None:
    """The last test of this module: it takes the stack down."""
    stack.compose("down")
    label = f"label=com.docker.compose.project={stack.project}"
    assert docker("ps", "--all", "--quiet", "--filter", label).stdout == ""
    assert docker("network", "ls", "--quiet", "--filter", label).stdout == ""
    assert len(docker("volume", "ls", "--quiet", "--filter", label).stdout.split()) == 2
    assert (stack.outputs / "job_5.csv").exists()


def test_passwords_can_come_from_files(image: str, tmp_path: Path) -> None:
    given = tmp_path / "secrets"
    given.mkdir()
    tmp_path.chmod(0o755)
    # Characters that a configuration file could trip over.
    (given / "redis_password").write_text('a"b\\c $d#\n')
    (given / "flower_password").write_text("from-a-file\n")
    with Compose(image, tmp_path, "deploy/compose.secrets.yml", NUM_JOBS=3, SECRETS=given) as stack:
        stack.up(worker=1)
        stack.wait_healthy(workers=1)
        stack.wait_completed()
        wait_for(lambda: stack.flower("/", "from-a-file").status, lambda status: status == 200, 30, "Flower lets in")
        environments = [inspect(identity)["Config"]["Env"] for identity in stack.containers()]
        assert "from-a-file" not in str(environments)
        assert stack.redis_password not in str(environments)


def test_a_folder_of_somebody_else_is_refused_and_not_touched(image: str, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    os.chown(outputs, 4242, 4243)
    with Compose(image, tmp_path) as stack:
        done = stack.compose("run", "--rm", "outputs", check=False)
        assert done.returncode == 1
        assert "set RUN_AS=4242:4243 in .env" in done.stderr + done.stdout
        assert outputs.stat().st_uid == 4242


def test_without_env_file_compose_says_what_to_do(engine: None, tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    done = docker(
        "compose",
        "--env-file",
        str(tmp_path / ".env"),
        "--file",
        str(ROOT / "docker-compose.yml"),
        "config",
        check=False,
    )
    assert done.returncode != 0
    assert "cp .env.example .env" in done.stderr
