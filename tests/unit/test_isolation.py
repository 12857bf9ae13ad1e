"""Slices in a child: the same results, and a death that is told apart from a failure."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from common import outputs, results
from common.batch import BatchSpec
from common.ledger.ranges import Slice
from services.worker import isolation as isolation_module
from services.worker.aftermath import end_program
from services.worker.board import Board
from services.worker.isolation import Isolation, ProcessDied
from services.worker.job import BatchJob
from services.worker.slice import SliceFailure, run_slice
from tests.support import expected_csv, runs, wait_for

SEED = 42


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board.create(tmp_path / "board", 1)
    board.write(0, os.getpid(), "token")
    yield board
    board.close()


@pytest.fixture
def isolation(board: Board) -> Isolation:
    return Isolation(board, 0)


@pytest.fixture(params=["files", "packed"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BatchJob]:
    spec = BatchSpec(7, 20, SEED, output_mode=request.param)
    outputs.prepare(tmp_path, spec)
    job = BatchJob(spec, tmp_path, "slot-0", "slice")
    yield job
    job.close()


def work(job: BatchJob, board: Board, first: int = 1, count: int = 10) -> Callable[[], Slice]:
    return partial(
        run_slice,
        job,
        first,
        count,
        seconds=60.0,
        attempt=1,
        slot=1,
        stopping=lambda: False,
        recorder=board.recorder(0),
    )


def test_a_child_gives_the_same_slice(job: BatchJob, board: Board, isolation: Isolation, tmp_path: Path) -> None:
    here, there = work(job, board)(), isolation.run(job, work(job, board, 11))
    assert (here.done, there.done, there.first) == (10, 10, 11)
    assert there.states == here.states
    assert there.completed == [(11, 10)]
    job.sync()
    store = results.open_store(tmp_path / "7", job.spec)
    assert [store.read(index) for index in range(1, 21)] == [expected_csv(SEED, index) for index in range(1, 21)]


def test_slot_and_children_write_in_turn(job: BatchJob, board: Board, isolation: Isolation, tmp_path: Path) -> None:
    """A packed segment has one end, which each finds where the other left it."""
    for first in range(1, 21, 4):
        isolation.run(job, work(job, board, first, 2))
        work(job, board, first + 2, 2)()
        job.sync()
    store = results.open_store(tmp_path / "7", job.spec)
    assert [store.read(index) for index in range(1, 21)] == [expected_csv(SEED, index) for index in range(1, 21)]


@pytest.mark.parametrize(
    ("death", "code"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), -signal.SIGTERM),
        (lambda: os._exit(3), 3),
        (lambda: os._exit(0), 0),
    ],
)
def test_a_death_is_told_with_its_exit_code(
    job: BatchJob, board: Board, isolation: Isolation, death: Callable[[], Slice], code: int
) -> None:
    with pytest.raises(ProcessDied):
        isolation.run(job, death)
    assert (board.progress(0).exit_code, board.progress(0).runner) == (code, 0)
    assert board.read(0).token == "token"


def test_a_child_that_died_after_some_jobs_leaves_their_records(
    job: BatchJob, board: Board, isolation: Isolation
) -> None:
    compute = job.compute

    def deadly(index: int, attempt: int) -> tuple[bytes, tuple[float, ...]]:
        if index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(index, attempt)

    job.compute = deadly  # type: ignore[method-assign,assignment]
    with pytest.raises(ProcessDied):
        isolation.run(job, work(job, board))
    progress = board.progress(0)
    assert (progress.first, progress.done, progress.since > 0) == (1, 3, True)
    assert len(board.records(0)) == 3 * progress.record_size


def test_unwritable_results_are_told(job: BatchJob, board: Board, isolation: Isolation, tmp_path: Path) -> None:
    """Of files what was written counts; of packed results nothing, for they were in the child's memory."""
    compute = job.compute

    def closing(index: int, attempt: int) -> tuple[bytes, tuple[float, ...]]:
        if index == 4:
            outputs.remove_staging(tmp_path, job.spec)
        return compute(index, attempt)

    job.compute = closing  # type: ignore[method-assign,assignment]
    expected = SliceFailure if job.spec.output_mode == "files" else Exception
    with pytest.raises(expected) as failed:
        isolation.run(job, work(job, board))
    if isinstance(failed.value, SliceFailure):
        assert failed.value.work.done == 3


def test_a_fault_of_ours_is_raised(job: BatchJob, isolation: Isolation) -> None:
    def broken() -> Slice:
        raise KeyError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        isolation.run(job, broken)


def test_what_jobs_print_appears_once(
    job: BatchJob, board: Board, isolation: Isolation, capfd: pytest.CaptureFixture[str]
) -> None:
    sys.stdout.write("before ")
    run = work(job, board)

    def printing() -> Slice:
        sys.stdout.write("in the child ")
        return run()

    isolation.run(job, printing)
    sys.stdout.write("after")
    assert capfd.readouterr().out == "before in the child after"


def test_a_child_dies_with_its_slot(job: BatchJob, board: Board, isolation: Isolation) -> None:
    slot = os.fork()
    if not slot:
        try:
            isolation.run(job, lambda: time.sleep(60))  # type: ignore[arg-type,return-value]
        finally:
            os._exit(0)
    wait_for(lambda: board.progress(0).runner, 10, "the child")
    child = board.progress(0).runner
    os.kill(slot, signal.SIGKILL)
    os.waitpid(slot, 0)
    wait_for(lambda: not runs(child), 10, "the child's end")


def test_a_child_that_outlived_its_slot_is_ended(board: Board) -> None:
    """Where the kernel does not do it, the slot's successor does, before it reads the board."""
    with subprocess.Popen(["sleep", "60"]) as child:
        board.note_runner(0, child.pid)
        end_program(board, 0)
        assert child.wait(30) == -signal.SIGKILL


def test_a_slice_that_is_told_in_part_is_none(
    job: BatchJob, board: Board, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk was full."""
    monkeypatch.setattr(isolation_module, "write_all", lambda file, data, at: os.pwrite(file, data[:-10], at))
    with pytest.raises(ProcessDied):
        isolation.run(job, work(job, board))
    assert board.progress(0).done == 10
