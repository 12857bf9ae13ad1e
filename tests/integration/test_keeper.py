"""The keeper goes on with its other steps when one of them fails."""

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import queue
from common.batch import JobState
from common.ledger import Connection, batches, keys, workers
from common.ledger.ranges import Lease, Ticket
from common.settings import Settings
from services.worker import aftermath
from services.worker.board import Board
from services.worker.guard import Guard, Limits
from services.worker.keeper import EXIT_SILENT, SILENT_SECONDS, SUCCESSOR_SECONDS, SUSPENDED_SECONDS, Keeper
from services.worker.slice import run_slice
from tests.conftest import RedisServer, StartWorker
from tests.integration.ledger_support import assert_consistent, submit, take
from tests.support import wait_for
from tests.unit.test_slice import FakeJob

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def keeper(connection: Connection, redis_url: str, root: Path, tmp_path: Path) -> Iterator[Keeper]:
    """One whose status file has no directory to go to."""
    # Or a recovery begins, and its thread marks the Redis of a later test.
    batches.mark(connection)
    board = Board.create(tmp_path / "board", 1)
    settings = Settings(redis_url=redis_url, output_dir=root)
    keeper = Keeper(settings, queue.make_app(redis_url), board, "w", tmp_path / "gone" / "status.json")
    yield keeper
    keeper.stop()
    board.close()


def test_a_redis_that_hangs_is_told(own_redis: RedisServer, root: Path, tmp_path: Path) -> None:
    """In the status, with each second that it does not answer; nothing ends meanwhile, and afterwards all is well."""
    board = Board.create(tmp_path / "board", 1)
    settings = Settings(redis_url=own_redis.url, output_dir=root)
    status = tmp_path / "status.json"
    keeper = Keeper(settings, queue.make_app(own_redis.url), board, "w", status)
    keeper.start()

    def away() -> float:
        return float(json.loads(status.read_text())["out_of_touch_seconds"])

    wait_for(status.exists, 10, "the status")
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        # Longer than what is taken for a suspension of our own.
        wait_for(lambda: away() > SUSPENDED_SECONDS + 2, 40, "the hanging Redis", status.read_text)
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    wait_for(lambda: away() < 5, 10, "the answer", status.read_text)
    keeper.stop()
    board.close()


def test_a_step_that_fails_stops_no_other(
    keeper: Keeper, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a volume that is away, nor a defect; and once it is back, so is the step."""
    monkeypatch.setattr(keeper, "_offer_dead", lambda _now: [][1])
    keeper.start()
    wait_for(lambda: workers.alive(connection), 10, "a heartbeat")
    (tmp_path / "gone").mkdir()
    wait_for(lambda: (tmp_path / "gone" / "status.json").exists(), 10, "the status")


class HangingVolume(FakeJob):
    """Its first job's result is not put into place before ``goes_on``; the second job never ends."""

    def __init__(self) -> None:
        super().__init__({2: lambda: time.sleep(3600)}, Limits(time_seconds=60.0))
        self.hangs, self.goes_on = FORK.Event(), FORK.Event()

    def store(self, index: int, data: bytes) -> None:
        """Wait for the volume."""
        self.hangs.set()
        self.goes_on.wait()


def run_on(board: Board, job: FakeJob) -> None:
    """Be the slot's process."""
    guard = Guard()
    guard.install()
    board.write(0, os.getpid(), "1-x-1")
    run_slice(job, 1, 2, seconds=60, attempt=1, slot=1, stopping=lambda: False, recorder=board.recorder(0), guard=guard)


def test_no_limit_runs_while_the_volume_hangs(keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job that has computed its result in time; the next one has its limit again."""
    board, job = Board(tmp_path / "board", 1), HangingVolume()
    slot = FORK.Process(target=run_on, args=(board, job), daemon=True)
    slot.start()
    try:
        assert job.hangs.wait(30)
        late = time.monotonic() + 3600
        with monkeypatch.context() as patch:
            patch.setattr("services.worker.keeper.time.monotonic", lambda: late)
            keeper._enforce_limits()
        assert (board.progress(0).done, board.progress(0).ended_as) == (0, 0)
        job.goes_on.set()
        wait_for(lambda: board.progress(0).done == 1 and board.progress(0).limit_seconds, what="the next job")
        with monkeypatch.context() as patch:
            patch.setattr("services.worker.keeper.time.monotonic", lambda: late)
            keeper._enforce_limits()
        assert board.progress(0).ended_as == JobState.TIMEOUT
        slot.join(30)
        assert slot.exitcode == -signal.SIGKILL
    finally:
        slot.kill()
        slot.join()
        board.close()


def works(board: Board, index: int, pid: int, lease: Lease) -> None:
    """What a slot says that is at the first job of its range."""
    board.write(index, pid, lease.token)
    board.recorder(index).begin(lease.first, 44, 1, 0)
    board.recorder(index).start(time.monotonic())


def test_a_successor_that_comes_late_is_left_alone(
    connection: Connection, redis_url: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one slot of two that died is buried, the other's successor comes, and runs a program by then."""
    spec = submit(connection, 20, ranges=[(1, 10), (11, 10)])
    gone = subprocess.Popen(["true"])
    gone.wait()
    board = Board.create(tmp_path / "two", 2)
    settings = Settings(redis_url=redis_url, output_dir=root)
    keeper = Keeper(settings, queue.make_app(redis_url), board, "w", tmp_path / "status.json")
    for index in (0, 1):
        works(board, index, gone.pid, take(connection))
    successor = subprocess.Popen(["sleep", "3600"])
    program = subprocess.Popen(["sleep", "3600"], process_group=0)
    held: list[Lease] = []

    def bury(*given: object) -> None:
        *others, first = given
        aftermath.bury(*given)  # type: ignore[arg-type]
        if not held:
            second = board.read(1 - first.index)  # type: ignore[attr-defined]
            aftermath.bury(*others, second)  # type: ignore[arg-type]
            held.append(take(connection))
            works(board, second.index, successor.pid, held[0])
            board.recorder(second.index).program_began(program.pid, 0)

    monkeypatch.setattr("services.worker.keeper.bury", bury)
    try:
        keeper._offer_dead(0.0)
        assert not held
        keeper._offer_dead(SUCCESSOR_SECONDS)
        assert connection.command("ZSCORE", keys.LEASES, held[0].token) is not None
        assert batches.view(connection, spec.id).crashes == 2, "those of the two that died"
        # A signal that was sent to it would be there by now.
        assert program.poll() is None
        assert_consistent(connection)
    finally:
        for process in (program, successor):
            process.kill()
            process.wait()
        board.close()


def test_whoever_takes_stale_tickets_is_not_silent(
    keeper: Keeper, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are left; one that takes none for so long ends itself."""
    board, now = Board(tmp_path / "board", 1), keeper.loop_seen
    connection.command("LPUSH", queue.queue_name("default"), "a ticket")

    def end(code: int) -> None:
        raise SystemExit(code)

    def watch(later: float) -> None:
        keeper.loop_seen = keeper._in_touch_at = now + later
        keeper._watch_loop(now + later)

    monkeypatch.setattr("services.worker.keeper.os._exit", end)
    for look in (1, 2, 3):
        board.note_ticket(0)
        watch(look * (SILENT_SECONDS + 1))
    with pytest.raises(SystemExit) as ended:
        watch(4 * (SILENT_SECONDS + 1))
    assert ended.value.code == EXIT_SILENT
    board.close()


def test_a_slot_says_which_tickets_it_takes(connection: Connection, redis_url: str, worker: StartWorker) -> None:
    """Also those for which nothing waits any more."""
    started = worker(slots=1)
    board = Board(next(started.log.parent.glob("batchsim-worker-*/board")), 1)
    assert board.tickets() == 0
    queue.publish(queue.make_app(redis_url), [Ticket(1, f"1-x-{number}", 1, 1) for number in range(5)])
    wait_for(lambda: board.tickets() == 5, what="the tickets", state=started.text)
    board.close()
