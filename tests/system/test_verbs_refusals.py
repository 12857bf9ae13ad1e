"""What the command line and the server refuse, verb by verb: one clear message, and nothing has changed."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from batchsim.cli import batchsim
from common import queue
from common.errors import InvalidInput
from common.ledger import Connection, batches
from common.settings import Settings
from common.submission import Submitter
from services.api.app import create_app


@pytest.fixture
def server(connection: Connection, redis_url: str, root: Path) -> Iterator[str]:
    """A server's address; the start-up batch of 5 jobs waits."""
    given = Settings(_env_file=None, redis_url=redis_url, num_jobs=5, output_dir=root)  # type: ignore[call-arg]
    Submitter(connection, queue.make_app(redis_url), root).start_up(given, "test")
    app = create_app(given)
    served = make_server("127.0.0.1", 0, app, threaded=False)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()
    app.extensions["batchsim"].connection.close()


def in_process(url: str, arguments: tuple[object, ...], *, standalone_mode: bool = True) -> Result:
    """The command line, without the second that a process takes to start."""
    words = [str(argument) for argument in arguments]
    env = {"BATCHSIM_URL": url, "API_TOKEN": ""}
    return CliRunner().invoke(batchsim, words, env=env, standalone_mode=standalone_mode)


WRONG: list[tuple[tuple[object, ...], str]] = [
    (("submit", "--jobs", 5, "--retries", -1), "400: retries is -1"),
    (("submit", "--jobs", 5, "--max-fails", "many"), "400: max_fails is 'many'"),
    (("submit", "--jobs", 5, "--dependency", "afterok:99"), "400: dependency: there is no batch 99"),
    (("submit", "--jobs", 5, "--dependency", "7"), "400: dependency is '7'"),
    (("submit", "--jobs", 5, "--partition", "A"), "400: partition is 'A'"),
    (("submit", "--jobs", 5, "--param", "raises=1"), "400: raises is not a parameter of random_numbers"),
    (("submit", "--jobs", 5, "--simulation", "faulty", "--param", "raises=nan"), "400: raises is 'nan'"),
    (("submit", "--jobs", 5, "--simulation", "faulty", "--param", "raises=x"), "400: raises is 'x'"),
    (("submit", "--jobs", 5, "--param", "raises"), "--param raises: is not NAME=VALUES"),
    (("submit", "--jobs", 5, "--", "./model"), "-- ./model: over HTTP only programs can be started that"),
    (("submit", "--script", "job.sh", "--jobs", 5), "--script: over HTTP only programs can be started that"),
    (("submit", "--jobs", 5, "--shell=ls"), "--shell: over HTTP only programs can be started that"),
    (("submit", "--jobs", 5, "--simulation", "faulty", "--", "./model"), "`batchsim run`"),
    (("submit", "--jobs", 5, "--simulation", "faulty", "--script", "x"), "400: script is not a parameter of faulty"),
    (("submit",), "--jobs is missing: give a number, such as --jobs 1000"),
    (("submit", "--jobs", 5, "--simulation", "faulty", "--raises", "0:inf:1"), "must be three finite numbers"),
    (("submit", "--jobs", 7, "--simulation", "faulty", "--raises", "0,0.1"), "jobs is 7, but the sweep has 2"),
    (("submit", "--jobs", 5, "--simulation", "none", "--x", "1"), "400: simulation is 'none'"),
    (("estimate", 99), "404: There is no batch 99"),
    (("estimate", 1, "--confidence", 2), "400: confidence is 2"),
    (("estimate", 1, "--points"), "400: Batch 1 is no sweep"),
    (("cancel", "1_6"), "400: jobs: '6' is not within 1-5"),
    (("cancel", "1_[x]"), "400: jobs: 'x' is not"),
    (("cancel", "x"), "'x' is not a batch or job id"),
    (("cancel", 99), "404: There is no batch 99"),
    (("hold", 99), "404: There is no batch 99"),
    (("release", 99), "404: There is no batch 99"),
    (("update", 99, "--throttle", 1), "404: There is no batch 99"),
    (("update", 1), "400: send at least one of throttle, priority, max_fails"),
    (("update", 1, "--throttle", -1), "400: throttle is -1"),
    (("update", 1, "--priority", 101), "400: priority is 101"),
    (("requeue", 99), "404: There is no batch 99"),
    (("requeue", 1, "--state", "nonsense"), "400: 'nonsense' is not a state of a job"),
    (("requeue", 1, "--state", "PENDING"), "400: jobs that are PENDING are not run again"),
    (("requeue", 1, "--missing"), "409: Batch 1 still runs"),
    (("explain", "1_6"), "400: job is 6; batch 1 has jobs from 1 to 5"),
    (("explain", "1_0"), "400: job must be one whole number"),
    (("explain", 99), "404: There is no batch 99"),
]
USAGE: list[tuple[tuple[object, ...], str]] = [
    (("explain", "1_[1-3]"), "one job at a time"),
    (("submit", "--jobs", 5, "--output-mode", "zip"), "'zip' is not one of 'files', 'packed'"),
    (("submit", "--jobs", "x"), "'x' is not a valid integer"),
    (("cancel",), "Missing argument 'ID'"),
    (("cancel", 1, "--state", "FAILED"), "'FAILED' is not one of"),
    *(((verb, "1_2"), "'1_2' names jobs") for verb in ("show", "watch", "hold", "release", "requeue", "update")),
    (("export", "--batch", "1_2", "x"), "'1_2' names jobs"),
    (("update", 1, "--throttle", "x"), "'x' is not a valid integer"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_the_server_refuses(
    connection: Connection, server: str, arguments: tuple[object, ...], message: str
) -> None:
    """The error that becomes one line and exit code 2; no batch came of it."""
    done = in_process(server, arguments, standalone_mode=False)
    assert isinstance(done.exception, InvalidInput), done
    assert message in done.exception.message
    assert batches.all_ids(connection) == [1]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=lambda value: str(value)[:40])
def test_what_the_command_line_refuses(arguments: tuple[object, ...], message: str) -> None:
    """Exit code 2 and a line that says what is wrong, before any server is asked."""
    done = in_process("http://127.0.0.1:1", arguments)
    assert done.exit_code == 2, done
    assert message in done.output, done.output
