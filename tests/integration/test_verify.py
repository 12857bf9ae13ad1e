"""Verification on a running system: completed jobs run again, elsewhere, and nothing else changes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from batchsim.cli import batchsim
from common.ledger import Connection, batches, keys, verifications, workers
from common.ledger.verifications import Part, Report
from common.ledger.workers import WorkerInfo
from tests.conftest import StartWorker
from tests.integration.api_support import MakeClient, assert_problem
from tests.support import Running, counted, wait_for

MINE = '''
import os, time
from pathlib import Path
from batchsim import simulation

TROUBLE = Path(__file__).with_name("trouble")

@simulation(outputs={"x": float})
def mine(rng):
    """Behaves until a file says otherwise."""
    trouble = TROUBLE.read_text() if TROUBLE.exists() else ""
    if trouble == "crash":
        os._exit(3)
    if trouble == "raise":
        raise ValueError("no more \\udcff")
    if trouble == "hang":
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
    if trouble == "slow":
        time.sleep(4)
    return {"x": rng.random() + (trouble == "other")}
'''


@pytest.fixture
def mine(make_client: MakeClient, place: Path) -> FlaskClient:
    """A client of an app that knows the user's file."""
    return make_client(simulations_dir=str(place))


def ran(client: FlaskClient, connection: Connection, **body: object) -> int:
    """Submit and wait for the results files."""
    batch = int(client.post("/batches", json=body).get_json()["id"])
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    return batch


def verified(client: FlaskClient, batch: int, sample: int = 100, timeout: float = 60) -> dict[str, Any]:
    """Ask for a verification and wait for its end."""
    begun = client.post(f"/batches/{batch}/verify", json={"sample": sample})
    assert begun.status_code == 202, begun.text

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(begun.get_json()["url"]).get_json()
        return found if found["state"] == "DONE" else None

    found = wait_for(look, timeout, "the verification", lambda: client.get(begun.get_json()["url"]).text)
    assert found is not None
    return found


def two(connection: Connection, worker: StartWorker, **settings: object) -> list[Running]:
    """Two workers that are known to be alive."""
    started = [worker(wait=False, **settings), worker(wait=False, **settings)]
    wait_for(lambda: len(workers.alive(connection)) == 2, 20, "two workers", lambda: [run.text() for run in started])
    return started


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_on_another_worker(
    mine: FlaskClient, connection: Connection, root: Path, place: Path, worker: StartWorker, mode: str
) -> None:
    """The bytes are the same; no job runs where it ran first; counters, leases and files stay as they were."""
    two(connection, worker, SIMULATIONS_DIR=place)
    batch = ran(mine, connection, simulation="mine", jobs=300, output_mode=mode)
    before, files = counted(connection, batch), sorted(path.name for path in (root / str(batch)).iterdir())
    found = verified(mine, batch)
    assert {name: found[name] for name in ("checked", "sample", "differing", "same_worker")} == {
        "checked": 100, "sample": 100, "differing": [], "same_worker": 0
    }  # fmt: skip
    assert (counted(connection, batch), connection.command("ZCARD", keys.LEASES)) == (before, 0)
    assert sorted(path.name for path in (root / str(batch)).iterdir()) == files
    assert verified(mine, batch, 10_000)["checked"] == 300


def test_what_differs_is_named(
    mine: FlaskClient, connection: Connection, root: Path, place: Path, worker: StartWorker
) -> None:
    """Another CSV, one that is gone, a job that now gives something else or raises."""
    two(connection, worker, SIMULATIONS_DIR=place)
    batch = ran(mine, connection, simulation="mine", jobs=6)
    (root / str(batch) / "job_2.csv").write_bytes(b"x\r\n0.5\r\n")
    (root / str(batch) / "job_5.csv").unlink()
    assert verified(mine, batch)["differing"] == [
        {"job": f"{batch}_2", "why": "gives other bytes than its CSV holds"},
        {"job": f"{batch}_5", "why": "has no CSV"},
    ]
    (place / "trouble").write_text("raise")
    found = verified(mine, batch, 1)
    assert (found["checked"], len(found["differing"])) == (1, 1)
    assert found["differing"][0]["why"] == r"raised ValueError this time: no more \udcff"
    (place / "trouble").write_text("other")
    assert len(verified(mine, batch)["differing"]) == 6


def test_long_jobs_are_left_in_peace(
    mine: FlaskClient, connection: Connection, place: Path, worker: StartWorker
) -> None:
    """There is no lease to renew; longer than a slot that lost its lease would be let live."""
    two(connection, worker, SIMULATIONS_DIR=place)
    batch = ran(mine, connection, simulation="mine", jobs=2)
    (place / "trouble").write_text("slow")
    found = verified(mine, batch, 1)
    assert (found["checked"], found["differing"]) == (1, [])


def test_with_one_worker_alone(mine: FlaskClient, connection: Connection, place: Path, worker: StartWorker) -> None:
    """It runs them itself and says so; failed jobs are left alone."""
    started = worker(SIMULATIONS_DIR=place)
    wait_for(lambda: workers.alive(connection), 20, "its first heartbeat", started.text)
    sweep = {"points": [{"raises": 0.0}] * 5 + [{"raises": 1.0}] * 3}
    batch = ran(mine, connection, simulation="faulty", sweep=sweep)
    assert counted(connection, batch) == {"COMPLETED": 5, "FAILED": 3}
    found = verified(mine, batch)
    assert (found["checked"], found["differing"], found["same_worker"]) == (5, [], 5)


def test_a_worker_that_lacks_the_simulation_passes_it_on(
    mine: FlaskClient, connection: Connection, place: Path, worker: StartWorker
) -> None:
    """Of two workers only one can run it, and that one did: so there is no other."""
    two(connection, worker, SIMULATIONS_DIR=place)
    batch = ran(mine, connection, simulation="mine", jobs=40)
    for info in workers.alive(connection):
        os.kill(info.pid, signal.SIGTERM)
    wait_for(lambda: not workers.alive(connection), 20, "their end")
    assert_problem(mine.post(f"/batches/{batch}/verify"), 409, "batch")
    worker(wait=False)
    worker(wait=False, SIMULATIONS_DIR=place)
    wait_for(lambda: len(workers.alive(connection)) == 2, 20, "two workers")
    found = verified(mine, batch)
    # They are other processes than those that ran it, so not the same workers.
    assert (found["checked"], found["differing"], found["same_worker"]) == (40, [], 0)


@pytest.mark.parametrize("trouble", ["crash", "hang"])
def test_a_crash_while_verifying_harms_nothing(
    mine: FlaskClient, connection: Connection, place: Path, worker: StartWorker, trouble: str
) -> None:
    """A job that ends its process, or must be killed at its limit, is named; the batch is not struck, slots go on."""
    started = two(connection, worker, SIMULATIONS_DIR=place)
    batch = ran(mine, connection, simulation="mine", jobs=4, time_limit_seconds=3.0)
    (place / "trouble").write_text(trouble)
    found = verified(mine, batch, 1)
    assert found["differing"][0]["why"] == "ended the process that ran it again"
    assert (found["checked"], found["lost"]) == (1, [])
    view = batches.view(connection, batch)
    assert (counted(connection, batch), view.crashes, bool(view.finished)) == ({"COMPLETED": 4}, 0, True)
    (place / "trouble").unlink()
    assert counted(connection, ran(mine, connection, simulation="mine", jobs=20)) == {"COMPLETED": 20}
    assert [run.process.poll() for run in started] == [None, None]


def test_on_the_command_line(
    connection: Connection, api: Callable[..., str], root: Path, place: Path, worker: StartWorker
) -> None:
    """One line and 0; or what differs, and 1."""
    two(connection, worker, SIMULATIONS_DIR=place)
    url = api(SIMULATIONS_DIR=place)
    run = CliRunner()
    given = ["submit", "--jobs", "30", "--simulation", "mine", "--watch", "--url", url]
    batch = run.invoke(batchsim, given).output.splitlines()[0]
    done = run.invoke(batchsim, ["verify", batch, "--url", url])
    assert (done.exit_code, done.output) == (0, f"batch {batch}: 30 jobs run again, 0 differ\n")
    (root / batch / "job_3.csv").write_bytes(b"x\r\n1.0\r\n")
    done = run.invoke(batchsim, ["verify", batch, "--sample", "30", "--url", url])
    assert done.exit_code == 1
    assert f"job {batch}_3 gives other bytes than its CSV holds" in done.output


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"sample": 0}, "sample"),
        ({"sample": 10_001}, "sample"),
        ({"sample": "5"}, "sample"),
        ({"sample": True}, "sample"),
        ({"size": 5}, "size"),
    ],
)
def test_bad_input(client: FlaskClient, body: dict[str, object], field: str) -> None:
    """It names the field; nothing is begun."""
    batch = client.post("/batches", json={"jobs": 3}).get_json()["id"]
    assert_problem(client.post(f"/batches/{batch}/verify", json=body), 400, field)


def test_what_cannot_be_verified(client: FlaskClient) -> None:
    """A batch that is not there, one of which nothing has completed, a verification that nobody asked for."""
    batch = client.post("/batches", json={"jobs": 3}).get_json()["id"]
    assert_problem(client.post("/batches/99/verify"), 404, "batch")
    assert_problem(client.post(f"/batches/{batch}/verify"), 409, "batch")
    for name in ("abc", "v:0:report", "*", "a" * 300):
        assert_problem(client.get(f"/batches/{batch}/verify/{name}"), 404, "verification")


def test_the_books_of_a_verification(connection: Connection) -> None:
    """Parts that wait, are at work, have died, and have reported; all of it expires."""
    parts = [Part(7, "v", number, tuple(range(3 * number + 1, 3 * number + 4)), "w") for number in range(3)]
    verifications.begin(connection, 7, "v", parts)
    verifications.report(connection, parts[0], Report(3, [(2, "gives other bytes")], 3))
    verifications.at_work(connection, parts[1], 5, "w", Report(1, [(4, "has no CSV")], 0))
    found = verifications.look(connection, 7, "v")
    assert (found.done, found.checked, found.same_worker, found.differing) == (False, 3, 3, [(2, "gives other bytes")])
    verifications.report(connection, parts[2], Report(3, [], 0))
    assert not verifications.look(connection, 7, "v").done
    # Silent twice, because Redis may have been away itself.
    for done in (False, True):
        connection.command("DEL", keys.verification(7, "v", 1, "alive"))
        found = verifications.look(connection, 7, "v")
        assert found.done is done
    assert (found.checked, found.same_worker, found.lost) == (7, 3, [(5, "was lost while it ran again")])
    assert found.differing == [(2, "gives other bytes"), (4, "has no CSV")]
    # The worker lives on only now: what was said stays.
    workers.heartbeat(connection, WorkerInfo("w", 1, 0, 1))
    assert verifications.look(connection, 7, "v") == found
    connection.command("DEL", keys.WORKERS, keys.WORKER_INFO, keys.SLOTS, keys.PARTITION_SLOTS, keys.OFFERS)
    for key in connection.command("KEYS", "*"):
        assert connection.command("TTL", key) > 0
