"""``batchsim serve``: API, page, worker and Flower from one command, and all of them gone at its end."""

import base64
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.local.serve import STOP_SECONDS
from tests.support import (
    REPO,
    Running,
    differences,
    environment,
    expected_files,
    files,
    free_port,
    python,
    start,
    wait_for,
)

# One server for all of them, which the last one stops.
pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the server."""
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def server(redis_binary: str, place: Path) -> Iterator[dict[str, Any]]:
    """A server on free ports, for all tests of this file; the last one stops it."""
    api, flower = free_port(), free_port()
    given = environment(
        NUM_JOBS=5, SEED=42, API_PORT=api, FLOWER_PORT=flower, WORKERS=1, FLOWER_PASSWORD="let-me", MIN_FREE_MB=0
    )
    running = start(python("-m", "batchsim", "serve"), given, place, "serve")
    yield {"process": running, "api": f"http://127.0.0.1:{api}", "flower": f"http://127.0.0.1:{flower}"}
    running.kill()


def get(url: str, user: str = "") -> tuple[int, str]:
    """Status and body; 0 when nobody answers."""
    headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def test_health(server: dict[str, Any]) -> None:
    """Within some seconds /health is ok with the worker counted."""
    running: Running = server["process"]

    def healthy() -> bool:
        status, text = get(f"{server['api']}/health")
        return status == 200 and json.loads(text)["workers"] == 1

    wait_for(healthy, 60, "a healthy system", lambda: (get(f"{server['api']}/health"), running.text()))


def test_jobs(server: dict[str, Any], place: Path) -> None:
    """The start-up batch runs by itself, and its results are on the API, on the page and in the files."""

    def completed() -> bool:
        status, text = get(f"{server['api']}/jobs")
        return status == 200 and json.loads(text).get("state") == "COMPLETED"

    wait_for(completed, 60, "the start-up batch", lambda: get(f"{server['api']}/jobs"))
    assert json.loads(get(f"{server['api']}/jobs/count")[1]) == {"num_jobs": 5}
    assert differences(files(place / "outputs"), expected_files(42, 5)) == []
    assert get(f"{server['api']}/outputs/job_1.csv")[1].encode() == expected_files(42, 1)["job_1.csv"]
    status, page = get(f"{server['api']}/")
    assert status == 200
    assert "5 of 5 jobs done" in page


def test_flower(server: dict[str, Any]) -> None:
    """Flower asks for the password, and shows the worker to who has it."""
    wait_for(lambda: get(f"{server['flower']}/")[0], 60, "Flower")
    assert get(f"{server['flower']}/")[0] == 401
    assert get(f"{server['flower']}/", "batchsim:wrong")[0] == 401
    assert get(f"{server['flower']}/", "batchsim:let-me")[0] == 200


def test_port_in_use(server: dict[str, Any], home: Path) -> None:
    """A second server on the same port is exit code 2 and one line that names the variable."""
    port = server["api"].rsplit(":", 1)[1]
    second = start(python("-m", "batchsim", "serve"), environment(API_PORT=port), home, "second")
    try:
        assert second.wait() == 2, second.text()
        assert len(second.text().splitlines()) == 1
        assert f"API_PORT={port}" in second.text()
    finally:
        second.kill()


def test_part_that_dies_is_started_again(server: dict[str, Any]) -> None:
    """An API that is killed comes back by itself."""
    running: Running = server["process"]
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    pids = [int(pid) for pid in children.read_text().split()]
    [api] = [pid for pid in pids if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(api, signal.SIGKILL)
    wait_for(lambda: "API process ended" in running.text(), 60, "the message", running.text)
    wait_for(lambda: get(f"{server['api']}/health/live")[0] == 200, 60, "the new API", running.text)


def test_stops(server: dict[str, Any]) -> None:
    """Ctrl-C ends all of it within seconds, also what a part that died had started: exit code 0, no traceback."""
    running: Running = server["process"]
    begin = time.monotonic()
    running.signal(signal.SIGINT)
    assert running.wait() == 0, running.text()
    # The rest is for slow machines.
    assert time.monotonic() - begin < STOP_SECONDS + 5
    assert get(f"{server['api']}/health/live")[0] == 0
    assert get(f"{server['flower']}/")[0] == 0
    assert "Traceback" not in running.text()


def test_make_help() -> None:
    """``make help`` lists the targets that a user types."""
    text = subprocess.run(
        ["make", "help"], cwd=REPO, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    for target in ("run", "serve", "test", "check", "up", "down", "clean"):
        assert f"  make {target} " in text
