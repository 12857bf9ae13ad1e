"""Fixtures that all tests share: a private Redis, an outputs directory, worker and API processes."""

import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from common.errors import SettingsError
from common.ledger import Connection
from services.local import redis_server
from tests import support
from tests.support import Running

# A machine that stands still for a second says nothing of an example.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Short leases, so that recovery is seen within seconds.
LEASE_SECONDS = 2
# Where a slot's successor must see to its range however late it comes, as when crashes are counted.
LONG_LEASE_SECONDS = 20
SLICE_SECONDS = 0.2


class StartWorker(Protocol):
    """Starts a worker process and waits until it consumes."""

    def __call__(self, *, slots: int = 1, wait: bool = True, **settings: object) -> Running:
        """``settings`` are environment variables."""


class RedisServer:
    """A real server on a Unix socket in a short directory of its own; keeps its data over a restart."""

    def __init__(self, binary: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="bst-", dir="/tmp"))
        self.url = f"unix://{redis_server.socket_path(self.directory)}"
        self._command = redis_server.command(binary, self.directory)
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        redis_server.wait_until_ready(self.directory, process)
        return process

    def stop(self) -> None:
        """Kill the server; its append-only file stays."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again with what it had written."""
        self.process = self._start()

    def remove(self) -> None:
        """Kill the server and remove its data."""
        self.stop()
        shutil.rmtree(self.directory)


@pytest.fixture(scope="session")
def redis_binary() -> str:
    """The server to test with; without one the tests are skipped, but never in CI."""
    try:
        return redis_server.find_binary()
    except SettingsError as error:
        if os.environ.get("CI"):
            pytest.fail(error.message)
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def redis_url(redis_binary: str) -> Iterator[str]:
    """One private server for the whole session."""
    server = RedisServer(redis_binary)
    yield server.url
    server.remove()


@pytest.fixture
def own_redis(redis_binary: str) -> Iterator[RedisServer]:
    """A server for one test, which may stop, kill or suspend it."""
    server = RedisServer(redis_binary)
    yield server
    server.remove()


@pytest.fixture
def connection(redis_url: str) -> Iterator[Connection]:
    """A connection to the session's server, which is emptied first."""
    connection = Connection(redis_url)
    connection.command("FLUSHALL")
    yield connection
    connection.close()


def scratch(prefix: str) -> Path:
    """A new short directory, in memory if there is room: thousands of small files are slow on a disk."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    return Path(tempfile.mkdtemp(prefix=prefix, dir=memory if roomy else "/tmp"))


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty outputs directory, in a parent of its own."""
    parent = scratch("bso-")
    (parent / "outputs").mkdir()
    yield parent / "outputs"
    shutil.rmtree(parent)


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., object]:
    """:func:`tests.support.wait_for`."""
    return support.wait_for


@pytest.fixture
def home() -> Iterator[Path]:
    """A short directory for the processes of one test: their TMPDIR and working directory."""
    path = scratch("bsh-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def processes(root: Path, home: Path) -> Iterator[list[Running]]:
    """Processes that were started by the test; every one's whole group is killed before their files are removed."""
    started: list[Running] = []
    yield started
    for running in reversed(started):
        running.kill()


@pytest.fixture
def worker(redis_url: str, root: Path, home: Path, processes: list[Running]) -> StartWorker:
    """Starts real ``python -m services.worker`` processes."""

    def begin(*, slots: int = 1, wait: bool = True, **settings: object) -> Running:
        own = home / f"worker-{len(processes)}"
        own.mkdir()
        given = {
            "REDIS_URL": redis_url,
            "OUTPUT_DIR": root,
            "SLICE_SECONDS": SLICE_SECONDS,
            "LEASE_SECONDS": LEASE_SECONDS,
        }
        env = support.environment(**{**given, "TMPDIR": own, **settings})
        running = support.start(support.python("-m", "services.worker", "--slots", str(slots)), env, own, "worker")
        processes.append(running)
        if wait:
            wait_ready(running)
        return running

    return begin


def wait_ready(running: Running) -> None:
    """Return when the worker says that it is ready; fail at once when it has ended."""
    support.wait_for(
        lambda: "worker.ready" in running.text() or running.process.poll() is not None, 60, "worker.ready", running.text
    )
    assert running.process.poll() is None, running.text()


@pytest.fixture
def api(redis_url: str, root: Path, home: Path, processes: list[Running]) -> Callable[..., str]:
    """Starts a real API (gunicorn) on a free port and returns its address."""

    def begin(*arguments: str, **settings: object) -> str:
        own = home / f"api-{len(processes)}"
        own.mkdir()
        port = support.free_port()
        given = {"REDIS_URL": redis_url, "OUTPUT_DIR": root, "API_PORT": port, "TMPDIR": own}
        env = support.environment(**{**given, **settings})
        command = support.python("-m", "services.api", "--workers", "1", *arguments)
        running = support.start(command, env, own, "api")
        processes.append(running)
        url = f"http://127.0.0.1:{port}"
        support.wait_for(lambda: answers(f"{url}/health/live"), 60, "the API", running.text)
        return url

    return begin


def answers(url: str) -> bool:
    """Whether this address answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
