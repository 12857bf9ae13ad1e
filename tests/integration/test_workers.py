"""Real worker processes: the same bytes on any number of them, and whatever happens to them on the way."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from common import outputs, queue
from common.batch import BatchSpec
from common.ledger import Connection, batches, control, keys, workers
from common.ledger.batches import BatchView
from common.ledger.ranges import Ticket
from common.ledger.table import read, record_dtype
from common.submission import Submitter
from services.worker.board import Board
from tests.conftest import RedisServer, StartWorker
from tests.slots import slots_of, stopped_at_work
from tests.support import (
    OUTPUTS,
    counted,
    differences,
    environment,
    expected_files,
    files,
    python,
    start,
    wait_for,
)

SEED = 42
MANY = 25_000


@pytest.fixture
def submitter(connection: Connection, redis_url: str, root: Path) -> Submitter:
    """Submits to the test's Redis and directory, which is in use already: no worker has anything to recover."""
    batches.mark(connection)
    return Submitter(connection, queue.make_app(redis_url), root)


def ended(connection: Connection, spec: BatchSpec, timeout: float = 60.0) -> BatchView:
    """Wait for the end of the batch, checking at each look that its counters sum up."""

    def look() -> BatchView | None:
        counted(connection, spec.id)
        view = batches.view(connection, spec.id)
        return view if view.ended else None

    found = wait_for(look, timeout, "the end of the batch", lambda: counted(connection, spec.id))
    assert found is not None
    return found


def assert_complete(connection: Connection, spec: BatchSpec, root: Path) -> BatchView:
    """Every job is COMPLETED once; files, table, counters and statistics say the same."""
    view = ended(connection, spec)
    assert counted(connection, spec.id) == {"COMPLETED": spec.jobs}
    wanted = expected_files(spec.seed, spec.jobs)
    assert differences(files(outputs.directory(root, spec)), wanted) == []
    sums = [int(data.rsplit(b']",', 1)[1].split(b",")[0]) for data in wanted.values()]
    table = read(connection, spec.id, 1, spec.jobs, record_dtype(OUTPUTS))
    assert table["out:sum"].tolist() == sums
    found = batches.statistics(connection, spec.id, OUTPUTS)["sum"]
    assert (found.n, found.min, found.max) == (spec.jobs, min(sums), max(sums))
    assert found.mean == pytest.approx(sum(sums) / spec.jobs, rel=1e-9)
    assert connection.command("ZCARD", keys.LEASES) == 0
    assert connection.command("ZCARD", keys.waiting("default")) == 0
    wait_for(lambda: not outputs.staging(root, spec).exists(), 60, "the removal of the staging directory")
    return view


def under_way(submitter: Submitter, connection: Connection, slots: Sequence[int] = ()) -> BatchSpec:
    """A batch in its middle, with ``slots`` suspended and at work on it; another one, if we slept through the first."""
    while True:
        spec = submitter.submit(MANY, SEED)

        def caught(batch: int = spec.id) -> object:
            there = batches.view(connection, batch).done >= 2000 and (not slots or stopped_at_work(connection, slots))
            return there or (batches.view(connection, batch).ended and "over")

        if wait_for(caught, 60, "progress") is True:
            return spec
        wait_for(lambda: not connection.command("ZCARD", keys.LEASES), 60, "its end")


def test_five_and_a_thousand_jobs_on_one_worker(
    submitter: Submitter, connection: Connection, root: Path, worker: StartWorker
) -> None:
    """Five jobs and a thousand are what plain NumPy says, in all places; of the five each file is logged."""
    one = worker()
    assert_complete(connection, submitter.submit(5, SEED, startup=True), root)
    assert_complete(connection, submitter.submit(1000, SEED + 1), root)
    wait_for(
        lambda: all(f"Job {i} completed: {root}/job_{i}.csv" in one.text() for i in range(1, 6)), 5, "log", one.text
    )
    assert "Traceback" not in one.text()


def test_three_workers(submitter: Submitter, connection: Connection, root: Path, worker: StartWorker) -> None:
    """Three workers, one with two slots, give the same bytes, and more than one of them had a part in it."""
    started = [worker(wait=False), worker(slots=2, wait=False), worker(wait=False)]
    wait_for(lambda: len(workers.alive(connection)) == 3, 20, "three workers", lambda: [run.text() for run in started])
    spec = submitter.submit(5, SEED)
    assert_complete(connection, spec, root)
    spec = submitter.submit(20_000, SEED)
    assert_complete(connection, spec, root)
    assert len(set(read(connection, spec.id, 1, spec.jobs, record_dtype(OUTPUTS))["slot"])) >= 2


def test_kill_9_of_a_worker(submitter: Submitter, connection: Connection, root: Path, worker: StartWorker) -> None:
    """A worker and its slots that are killed in mid-batch lose nothing and count nothing twice; the batch ends soon."""
    victim, other = worker(slots=1), worker(slots=1)
    survivors = slots_of(other)
    spec = under_way(submitter, connection, slots_of(victim) + survivors)
    victim.kill()
    for pid in survivors:
        os.kill(pid, signal.SIGCONT)
    view = assert_complete(connection, spec, root)
    assert view.crashes >= 1
    assert other.process.poll() is None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_kill_9_of_a_slot(submitter: Submitter, connection: Connection, root: Path, worker: StartWorker) -> None:
    """One slot that dies is replaced, and its range is offered again at once, not when its lease runs out."""
    one = worker(slots=2, LEASE_SECONDS=600)
    slots = slots_of(one)
    spec = under_way(submitter, connection, slots)
    os.kill(slots[0], signal.SIGKILL)
    os.kill(slots[1], signal.SIGCONT)
    # Between two jobs there is nobody to blame.
    assert assert_complete(connection, spec, root).crashes <= 1
    wait_for(lambda: len(slots_of(one)) == 2, 10, "the new slot", one.text)


def test_sigterm_gives_back(submitter: Submitter, connection: Connection, root: Path, worker: StartWorker) -> None:
    """A worker that is told to stop gives its range back at a job's boundary, without a crash, and exits with 0."""
    leaving, staying = (worker(LEASE_SECONDS=600, SHUTDOWN_GRACE_SECONDS=600) for _ in range(2))
    wait_for(lambda: len(workers.alive(connection)) == 2, 60, "two workers")
    spec = under_way(submitter, connection)
    leaving.signal(signal.SIGTERM)
    assert leaving.wait(60) == 0, leaving.text()
    assert len(workers.alive(connection)) == 1 or "sign_off_failed" in leaving.text()
    view = assert_complete(connection, spec, root)
    assert view.crashes == 0
    assert staying.process.poll() is None


def test_sigterm_of_an_idle_worker(connection: Connection, worker: StartWorker) -> None:
    """An idle worker ends at once, signs off, and leaves no process."""
    one = worker(slots=2, SHUTDOWN_GRACE_SECONDS=600)
    wait_for(lambda: workers.alive(connection), 60, "the first heartbeat")
    one.signal(signal.SIGTERM)
    assert one.wait(60) == 0, one.text()
    assert workers.alive(connection) == [] or "sign_off_failed" in one.text()
    assert "Traceback" not in one.text()


def test_duplicate_tickets_count_once(
    submitter: Submitter, connection: Connection, root: Path, redis_url: str, worker: StartWorker
) -> None:
    """Every message three times, and some for nothing: each job still counts once."""
    spec = submitter.submit(200, SEED)
    app = queue.make_app(redis_url)
    tokens = connection.command("ZRANGE", keys.ranges(spec.id), 0, -1)
    queue.publish(app, [Ticket(spec.id, token.decode(), 1, 1) for token in tokens * 2])
    queue.publish(app, [Ticket(99, "nonsense", 1, 1), Ticket(spec.id, "", 0, 0)])
    app.close()
    worker(slots=2)
    assert_complete(connection, spec, root)
    wait_for(lambda: connection.command("LLEN", queue.QUEUE) == 0, 10, "an empty queue")


def test_lost_tickets_are_published_again(
    submitter: Submitter, connection: Connection, root: Path, worker: StartWorker
) -> None:
    """A queue whose messages have all vanished is filled again from the ledger."""
    spec = submitter.submit(20, SEED)
    connection.command("DEL", queue.QUEUE)
    worker()
    assert_complete(connection, spec, root)


def test_redis_restart(root: Path, own_redis: RedisServer, worker: StartWorker) -> None:
    """A Redis that is killed and comes back with its file: the worker goes on, nothing is lost or counted twice."""
    connection = Connection(own_redis.url)
    one = worker(slots=2, REDIS_URL=own_redis.url)
    spec = under_way(Submitter(connection, queue.make_app(own_redis.url), root), connection)
    own_redis.stop()
    own_redis.restart()
    assert_complete(connection, spec, root)
    assert one.process.poll() is None, one.text()
    spec = Submitter(connection, queue.make_app(own_redis.url), root).submit(5, SEED)
    assert_complete(connection, spec, root)
    connection.close()


def test_storage_that_comes_back(submitter: Submitter, connection: Connection, root: Path, worker: StartWorker) -> None:
    """An outputs directory that vanishes and returns: the worker waits, and then completes the batch."""
    one = worker()
    spec = submitter.submit(5, SEED)
    assert_complete(connection, spec, root)
    aside = root.with_name("aside")
    root.rename(aside)
    second = BatchSpec(spec.id + 1, 5, SEED)
    batches.new_id(connection)
    batches.submit(connection, second)
    wait_for(lambda: "storage.unavailable" in one.text(), 15, "the worker's complaint", one.text)
    aside.rename(root)
    assert_complete(connection, second, root)


def test_an_ended_batch_stays_closed(
    submitter: Submitter, connection: Connection, root: Path, worker: StartWorker
) -> None:
    """A cancelled and archived batch is not opened again by the slots that were at work on it."""
    one = worker(slots=2, SLICE_SECONDS=2)
    spec = submitter.submit(MANY, SEED, startup=True)
    wait_for(lambda: len(files(root)) > 100, 20, "some files", one.text)
    control.cancel(connection, spec.id)
    outputs.archive_startup(root)
    board = Board(next(one.log.parent.glob("batchsim-worker-*/board")), 2)
    wait_for(lambda: not any(entry.token for entry in board.entries()), 60, "idle slots", one.text)
    board.close()
    assert sorted(path.name for path in root.iterdir()) == [str(spec.id)], one.text()
    follower = submitter.submit(300, SEED + 1, startup=True)
    assert_complete(connection, follower, root)
    assert outputs.read_spec(root) == follower
    assert not outputs.staging(root, spec).exists()
    assert differences(files(root), expected_files(follower.seed, 300)) == []


def test_health_check_of_a_worker(connection: Connection, worker: StartWorker, home: Path) -> None:
    """``python -m services.worker health`` is 0 beside a worker that consumes, and 1 without one."""
    one = worker()
    own = one.log.parent
    wait_for(lambda: list(own.glob("batchsim-worker-*.json")), 5, "the status file")
    checks = {}
    for name, place in (("beside", own), ("alone", home)):
        check = start(python("-m", "services.worker", "health"), environment(TMPDIR=place), home, name)
        checks[name] = (check.wait(), check.text().strip())
    assert checks["beside"] == (0, "ok")
    assert checks["alone"][0] == 1
    assert "no status" in checks["alone"][1]


WRONG = [({"REDIS_URL": ""}, "REDIS_URL"), ({"OUTPUT_DIR": "/nowhere"}, "/nowhere"), ({"WORKERS": "x"}, "WORKERS=x")]


@pytest.mark.parametrize(("settings", "name"), WRONG)
def test_worker_with_a_wrong_setting(worker: StartWorker, settings: dict[str, str], name: str) -> None:
    """A wrong setting is one line and exit code 2."""
    one = worker(wait=False, **settings)
    assert one.wait() == 2
    assert len(one.text().splitlines()) == 1
    assert name in one.text()
