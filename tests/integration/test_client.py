"""The client and the command line against a real server, none, and servers that are not ours."""

import contextlib
import json
import math
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from scipy import stats

from batchsim.client import Client
from common import queue
from common.errors import BatchSimError, BrokerUnavailable, InvalidInput
from common.intervals import plus_minus
from common.ledger import Connection, batches, control
from common.submission import Submitter
from tests import support
from tests.conftest import StartWorker
from tests.integration.api_support import TOKEN
from tests.support import free_port


def cli(*arguments: object, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run ``batchsim`` as a user does, away from any .env."""
    return subprocess.run(
        support.python("-m", "batchsim", *(str(argument) for argument in arguments)),
        env=support.environment(**settings), cwd="/", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def assert_one_line(done: "subprocess.CompletedProcess[str]", code: int, said: str) -> None:
    """The command ended with this code, one line on standard error, and nothing on standard output."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("batchsim: ")
    assert said in done.stderr


def test_submit_show_watch_and_doctor_on_a_real_server(
    connection: Connection, redis_url: str, root: Path, api: Callable[..., str], worker: StartWorker
) -> None:
    """The whole way: an id, lines until the end, JSON, nothing wrong; then damage, which doctor finds."""
    url = api(API_TOKEN=TOKEN)
    worker(slots=2)
    given = {"BATCHSIM_URL": url, "API_TOKEN": TOKEN}
    done = cli("submit", "--jobs", 20, "--seed", 42, "--job-seconds", 0.02, "--watch", **given)
    assert done.returncode == 0, done
    first, *lines = done.stdout.splitlines()
    *moves, of_sum, of_mean = lines
    assert moves[-1] == f"batch {first}: COMPLETED, 20 of 20 jobs"
    assert len(moves) == len(set(moves))
    shown = json.loads(cli("show", first, **given).stdout)
    found = shown["statistics"]["sum"]
    half = stats.t.ppf(0.975, 19) * found["standard_deviation"] / math.sqrt(20)
    wanted = f"{plus_minus(found['mean'], half)} (95 %), sd {found['standard_deviation']:.6g}, n 20"
    assert of_sum == f"  sum: mean {wanted}"
    assert of_mean.startswith("  mean: mean ")
    assert (shown["counters"], shown["statistics"]["sum"]["n"]) == ({"COMPLETED": 20}, 20)
    assert cli("watch", first, **given).returncode == 0

    client = Client(f"{url}/", TOKEN)
    accepted = client.submit(100_000, 1, job_seconds=60, idempotency_key="k")
    assert client.submit(100_000, 1, job_seconds=60, idempotency_key="k") == accepted
    with pytest.raises(InvalidInput, match="409"):
        client.submit(5, 1, idempotency_key="k")
    assert client.batch(accepted["id"])["jobs"] == 100_000
    control.cancel(connection, accepted["id"])
    watched = cli("watch", accepted["id"], **given)
    assert (watched.returncode, watched.stdout.splitlines()[-1]) == (
        1, f"batch {accepted['id']}: CANCELLED, 100,000 of 100,000 jobs"
    )  # fmt: skip

    settings = {"REDIS_URL": redis_url, "OUTPUT_DIR": root}
    fine = cli("doctor", **settings)
    assert (fine.returncode, fine.stderr) == (0, ""), fine
    # The third is the start-up batch.
    assert fine.stdout.count("nothing wrong") == 3
    (root / first / "job_3.csv").unlink()
    found = cli("doctor", **settings)
    assert found.returncode == 1
    assert "_3 is missing" in found.stdout

    for token in ("", "wrong"):
        assert_one_line(cli("show", first, **{**given, "API_TOKEN": token}), 2, "401")
    assert_one_line(cli("show", 999, **given), 2, "There is no batch 999")
    assert_one_line(cli("watch", 999, **given), 2, "There is no batch 999")
    assert_one_line(cli("submit", "--jobs", 0, **given), 2, "jobs is 0; it must be from 1 to")
    assert_one_line(cli("submit", "--jobs", 5, "--seed", -1, **given), 2, "seed is -1")


def test_doctor_without_a_ledger(redis_url: str, connection: Connection, root: Path) -> None:
    """Only the volume is left: a sample of the jobs run again finds the altered file."""
    spec = Submitter(connection, queue.make_app(redis_url), root).submit(2, 42)
    (root / str(spec.id) / "job_1.csv").write_bytes(support.expected_csv(42, 1))
    assert (cli("doctor", OUTPUT_DIR=root).returncode) == 0
    (root / str(spec.id) / "job_1.csv").write_bytes(support.expected_csv(42, 2))
    found = cli("doctor", OUTPUT_DIR=root)
    assert (found.returncode, "gives other bytes" in found.stdout) == (1, True)


def test_doctor_has_nothing_to_look_at(root: Path) -> None:
    """An empty and a missing directory, and a Redis that is away, are said in one line."""
    assert_one_line(cli("doctor", OUTPUT_DIR=root), 1, "There is no batch")
    assert_one_line(cli("doctor", OUTPUT_DIR=root, REDIS_URL="redis://127.0.0.1:1"), 1, "Redis")


def test_doctor_without_a_directory(root: Path) -> None:
    """A mistyped OUTPUT_DIR is one line, not a traceback."""
    assert_one_line(cli("doctor", OUTPUT_DIR=root / "missing"), 1, "missing")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://localhost",
        "",
        *(pytest.param(url) for url in ("http://127.0.0.1:port", "http://[::1")),
    ],
)
def test_a_bad_url_is_one_line(url: str) -> None:
    """An address that is none is the user's mistake."""
    assert_one_line(cli("show", 1, "--url", url), 2, "")


def test_a_server_that_is_not_there() -> None:
    """Nobody listens: one line with the address."""
    url = f"http://127.0.0.1:{free_port()}"
    assert_one_line(cli("show", 1, "--url", url), 1, f"{url} does not answer")
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        Client(url).batch(1)


@contextlib.contextmanager
def foreign_server(status: int, body: bytes) -> Iterator[str]:
    """A server that is none of ours; with status 0 it hangs up without a word."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not status:
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        # A daemon, and ended in any case: a failed test must not keep the whole run from ending.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>"),
        (502, b"oh"),
        *(
            pytest.param(*answer)
            for answer in ((200, b"<html>"), (200, b""), (200, b"[]"), (404, b"[1]"), (500, b"null"), (0, b""))
        ),
    ],
)
def test_a_server_that_is_not_ours(status: int, body: bytes) -> None:
    """A proxy's page, an empty answer, a connection that breaks: an error of ours, never another."""
    with foreign_server(status, body) as url, pytest.raises(BatchSimError):
        Client(url).batch(1)


def test_values_are_read_as_the_servers_simulation_takes_them(
    connection: Connection, api: Callable[..., str], tmp_path: Path
) -> None:
    """Which is not to be had where they are typed: a number as text, a list as JSON."""
    (tmp_path / "mine.py").write_text(
        "from batchsim import simulation\n"
        '@simulation(outputs={"y": float})\n'
        'def mine(rng, *, name: str, v: list[float], k: float = 1.0):\n    return {"y": k}\n'
    )
    url = api(SIMULATIONS_DIR=tmp_path)
    words = ("submit", "--jobs", 2, "--simulation", "mine", "--v", "[1,2]", "--k", "1.50", "--name")
    done = cli(*words, "1.10", BATCHSIM_URL=url)
    assert done.returncode == 0, done
    spec = batches.view(connection, int(done.stdout)).spec
    assert spec.parameters == {"name": "1.10", "v": [1, 2], "k": 1.5}
    assert_one_line(cli(*words, "[1", BATCHSIM_URL=url), 2, "--param name: [1: what begins with [ is one value as JSON")
