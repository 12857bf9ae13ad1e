"""The original's form, in one container: `docker run --rm -v $(pwd)/outputs:/app/outputs ... hpc-batch-sim:latest`."""

import os
import time
from pathlib import Path

import pytest
from container_harness import docker, one_container

pytestmark = [pytest.mark.containers, pytest.mark.xdist_group("containers"), pytest.mark.timeout(120, func_only=True)]


def folder(place: Path, owner: tuple[int, int] | None) -> Path:
    """The folder to mount; without an owner it is left to Docker to make it."""
    outputs = place / "outputs"
    if owner:
        outputs.mkdir()
        os.chown(outputs, *owner)
    return outputs


@pytest.mark.parametrize(
    ("owner", "options"),
    [
        pytest.param(None, [], id="docker-makes-the-folder"),
        pytest.param((0, 0), [], id="root"),
        pytest.param((1234, 1235), [], id="uid-1234"),
        pytest.param((1234, 1235), ["--read-only", "--tmpfs=/tmp"], id="read-only"),
        pytest.param((1234, 1235), ["--user=1234:1235", "--cap-drop=ALL"], id="user"),
        pytest.param(
            (1234, 1235), ["--user=1234:1235", "--cap-drop=ALL", "--read-only", "--tmpfs=/tmp"], id="user-read-only"
        ),
    ],
)
def test_five_jobs_whoever_owns_the_folder(
    image: str, tmp_path: Path, owner: tuple[int, int] | None, options: list[str]
) -> None:
    outputs = folder(tmp_path, owner)
    with one_container(image, outputs, *options) as container:
        container.wait_completed(timeout=60)
        health = container.get("/health").json
        assert (health["status"], health["jobs_dir"]) == ("ok", True)
        assert container.get("/jobs/count").json == {"num_jobs": 5}
        container.check_complete(5)
        assert {(path.stat().st_uid, path.stat().st_gid) for path in outputs.iterdir()} == {owner or (0, 0)}
        status = docker("exec", container.identity, "cat", "/proc/1/status").stdout
        assert "CapEff:\t0000000000000000" in status
        begin = time.monotonic()
        docker("stop", "-t", "30", container.identity)
        assert time.monotonic() - begin < 20, "docker stop had to kill it"


def test_a_second_run_moves_the_firsts_files_away(image: str, tmp_path: Path) -> None:
    outputs = folder(tmp_path, (1234, 1234))
    for batch in (1, 2):
        with one_container(image, outputs) as container:
            assert container.wait_completed(timeout=60) == batch
            first = first if batch == 2 else (outputs / "job_1.csv").read_bytes()  # noqa: F821
            docker("stop", container.identity)
    assert (outputs / "1" / "job_1.csv").read_bytes() == first
    assert (outputs / "job_1.csv").read_bytes() != first


def test_without_a_mount_it_runs_as_an_ordinary_user(image: str) -> None:
    assert docker("run", "--rm", image, "sh", "-c", "id -u; echo $HOME; touch /app/outputs/x").stdout == "1000\n/tmp\n"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("NUM_JOBS=0", "NUM_JOBS"),
        ("NUM_JOBS=five", "NUM_JOBS"),
        ("API_PORT=99999", "API_PORT"),
        ("BIND_ADDRESS=0.0.0.0", "API_TOKEN"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(image: str, setting: str, named: str) -> None:
    done = docker("run", "--rm", "-e", setting, image, check=False, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr


def test_the_image_has_no_build_tools(image: str) -> None:
    left = "ls -d /build /wheels /opt/* /opt/venv/bin/pip ~root/.cache; python -c 'import hatchling' 2>&1 | tail -1"
    done = docker("run", "--rm", image, "sh", "-c", left)
    assert done.stdout.splitlines() == ["/opt/venv", "ModuleNotFoundError: No module named 'hatchling'"]
