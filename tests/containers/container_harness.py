"""Drives the real Docker engine: one compose project, or one container, from start to removal."""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

ROOT = Path(__file__).parents[2]
State = TypeVar("State")


class Reply(NamedTuple):
    """An HTTP answer; status 0 when nobody answered."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def fetch(url: str, *, user: str = "", method: str = "GET", timeout: float = 10, body: object = None) -> Reply:
    """Ask ``url``; ``user`` is "name:password", and ``body`` is sent as JSON."""
    request = urllib.request.Request(url, method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Reply(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read())
    except OSError as error:
        return Reply(0, str(error).encode())


def docker(
    *arguments: str, check: bool = True, timeout: float = 300, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a docker command; a failure shows what it said."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    assert not check or done.returncode == 0, (
        f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done


def inspect(container: str) -> Any:
    """What ``docker inspect`` says."""
    return json.loads(docker("inspect", container).stdout)[0]


def image_id(image: str) -> str:
    """The digest by which the engine knows an image."""
    return docker("image", "inspect", "--format", "{{.Id}}", image).stdout.strip()


def wait_for(
    look: Callable[[], State], accept: Callable[[State], bool], timeout: float, what: str,
    evidence: Callable[[], str] = str,
) -> State:  # fmt: skip
    """Look until what is seen is accepted, and return it; on time-out say what was seen last, and the evidence."""
    deadline = time.monotonic() + timeout
    while True:
        # Before the look: whoever stood still until now has not looked in vain.
        over = time.monotonic() > deadline
        if accept(seen := look()):
            return seen
        if over:
            raise AssertionError(f"{what}: not within {timeout} s; last seen: {seen!r}\n{evidence()}")
        time.sleep(0.1)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def csv_files(folder: Path) -> set[str]:
    """The names of the jobs' files in ``folder``."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.startswith("job_")}


class Api:
    """The HTTP API on a port of this machine, and the folder that its jobs write to."""

    def __init__(self, port: int, outputs: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.outputs = outputs

    def get(self, path: str, **options: Any) -> Reply:
        """GET ``path``."""
        return fetch(self.url + path, **options)

    def post(self, path: str, **body: object) -> Reply:
        """POST ``body`` as JSON to ``path``."""
        return fetch(self.url + path, method="POST", body=body)

    def logs(self) -> str:
        """What to show when waiting was in vain."""
        return ""

    def wait_healthy(self, workers: int, timeout: float = 60) -> Any:
        """Wait until /health is 200 and so many workers live; returns what it says."""
        good = {"status": "ok", "workers": workers}
        return wait_for(
            lambda: self.get("/health").json, lambda seen: bool(seen) and good.items() <= seen.items(), timeout,
            f"health with {workers} workers", self.logs,
        )  # fmt: skip

    def batch(self) -> tuple[int | None, str]:
        """Id and state of the start-up batch; (None, "") while the API cannot say."""
        seen = self.get("/jobs?limit=1").json or {}
        return seen.get("batch"), seen.get("state", "")

    def wait_completed(self, batch: int | None = None, timeout: float = 120) -> int:
        """Wait until the start-up batch, which must be ``batch`` if given, is COMPLETED; returns its id."""

        def accept(seen: tuple[int | None, str]) -> bool:
            return seen[1] == "COMPLETED" and batch in (None, seen[0])

        return int(wait_for(self.batch, accept, timeout, f"batch {batch or ''} completed", self.logs)[0] or 0)

    def wait_progress(self, files: int, timeout: float = 60) -> int:
        """Wait until so many files are there; returns how many there are."""
        return wait_for(
            lambda: len(csv_files(self.outputs)), lambda count: count >= files, timeout, f"{files} files", self.logs
        )

    def check_complete(self, jobs: int) -> None:
        """Assert that each of ``jobs`` jobs is COMPLETED exactly once and has its file."""
        rows = [row for offset in range(0, jobs, 10_000) for row in self._page(offset)]
        assert Counter(row["state"] for row in rows) == {"COMPLETED": jobs}
        assert [row["index"] for row in rows] == list(range(1, jobs + 1))
        assert csv_files(self.outputs) == {f"job_{index}.csv" for index in range(1, jobs + 1)}

    def _page(self, offset: int) -> Any:
        return self.get(f"/jobs?limit=10000&offset={offset}", timeout=30).json["jobs"]


class Compose(Api):
    """One compose project with a name, an .env, ports and an outputs folder of its own; removed on exit."""

    def __init__(self, image: str, place: Path, *overrides: str, **settings: object) -> None:
        self.project = f"batchsim-test-{secrets.token_hex(3)}"
        self.redis_password, self.flower_password = secrets.token_hex(12), secrets.token_hex(12)
        self.flower_port = free_port()
        api_port = free_port()
        super().__init__(api_port, place / "outputs")
        self._env_file = place / ".env"
        self._files = [f"--file={ROOT / name}" for name in ("docker-compose.yml", *overrides)]
        self._settings: dict[str, object] = {
            "IMAGE": image, "IMAGE_DIGEST": image_id(image), "OUTPUTS": self.outputs,
            "API_PORT": api_port, "FLOWER_PORT": self.flower_port,
            "REDIS_PASSWORD": self.redis_password, "FLOWER_PASSWORD": self.flower_password,
        }  # fmt: skip
        self.set(**settings)

    def set(self, **settings: object) -> None:
        """Change .env: what .env.example says, and then these."""
        self._settings |= settings
        lines = [f"{name}={value}\n" for name, value in self._settings.items()]
        self._env_file.write_text((ROOT / ".env.example").read_text() + "".join(lines))

    def compose(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose`` on this project, with nothing but .env to set it."""
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME") or "DOCKER" in key}
        given = ["--project-name", self.project, "--env-file", str(self._env_file), *self._files]
        return docker("compose", *given, *arguments, env=environment, **options)

    def up(self, worker: int = 4) -> None:
        """Start, or change what runs to what .env and ``worker`` say."""
        self.compose("up", "--detach", "--no-build", "--scale", f"worker={worker}")

    def down(self) -> None:
        """Remove everything of the project, the volumes too."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout=5")

    def containers(self, *services: str) -> list[str]:
        """Ids of the running containers."""
        return self.compose("ps", "--quiet", *services).stdout.split()

    def logs(self) -> str:
        """The state of the containers and the end of their logs."""
        return self.compose("ps", "--all").stdout + self.compose("logs", "--no-color", "--tail=15").stdout

    def flower(self, path: str, password: str = "") -> Reply:
        """Ask Flower."""
        return fetch(f"http://127.0.0.1:{self.flower_port}{path}", user=f"batchsim:{password}" if password else "")

    def rerun(self) -> int:
        """Start the batch again; returns the new one's id."""
        reply = fetch(f"{self.url}/rerun", method="POST", timeout=60)
        assert reply.status == 202, reply
        return int(reply.json["batch"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.down()
        # Its files belong to another user.
        shutil.rmtree(self.outputs, ignore_errors=True)


class OneContainer(Api):
    """A container started by the README's `docker run`, with a port of its own published on loopback."""

    def __init__(self, identity: str, port: int, outputs: Path) -> None:
        super().__init__(port, outputs)
        self.identity = identity

    def logs(self) -> str:
        """What the container said."""
        done = docker("logs", self.identity, check=False)
        return done.stdout + done.stderr


@contextmanager
def one_container(image: str, outputs: Path, *options: str) -> Iterator[OneContainer]:
    """Run the whole system in one container; removed at the end."""
    port = free_port()
    run = ["run", "--rm", "--detach", f"--publish=127.0.0.1:{port}:8080", "-v", f"{outputs}:/app/outputs"]
    identity = docker(*run, "-e", "NUM_JOBS=5", "-e", "API_PORT=8080", *options, image).stdout.strip()
    try:
        yield OneContainer(identity, port, outputs)
    finally:
        docker("rm", "--force", identity, check=False)
