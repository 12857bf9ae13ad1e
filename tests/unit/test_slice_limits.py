"""A slice under limits: time, memory, retries, exit codes, being told to stop, and the board that sees it all."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.batch import JobState, Reason
from common.ledger.ranges import Slice
from common.ledger.table import record_dtype
from services.worker.board import Board
from services.worker.guard import Guard, Interrupted, Limits
from services.worker.slice import MOST_DELAY_SECONDS, run_slice, shortened
from tests.unit.test_slice import FakeJob, throw

# By default the plug-in takes the very alarm that the guard takes.
pytestmark = pytest.mark.timeout(60, method="thread")


class Own(BaseException):
    """What only a simulation knows."""


def run(job: FakeJob, count: int, guard: Guard | None = None, *, attempt: int = 1, tries: int = 0) -> Slice:
    """A slice of the jobs from 1 on."""
    return run_slice(
        job, 1, count, seconds=60, attempt=attempt, tries=tries, slot=9, stopping=lambda: False, guard=guard
    )


def records(job: FakeJob, work: Slice) -> "np.ndarray":
    """The slice's records."""
    return np.frombuffer(work.records, record_dtype(job.outputs))


def test_a_job_at_its_time_limit_is_a_timeout(guard: Guard) -> None:
    """It ends there, with its reason and error, and the next one has the whole time again."""
    job = FakeJob(
        {2: lambda: (signal.raise_signal(signal.SIGALRM), time.sleep(60))}, Limits(time_seconds=60, retries=5)
    )
    work = run(job, 4, guard)
    assert work.states == {JobState.COMPLETED: 3, JobState.TIMEOUT: 1}
    assert records(job, work)["reason"].tolist() == [0, Reason.TimeLimit, 0, 0]
    assert work.failures[2].splitlines()[-1].startswith("TimeLimit: ran for longer than 60 s (tests/unit/")
    assert work.retries == []
    assert work.completed == [(1, 1), (3, 2)]
    assert [index for index, _ in job.stored] == [1, 3, 4]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts what malloc maps on Linux only")
def test_a_job_beyond_its_memory_limit_is_out_of_memory() -> None:
    """The next ones have the memory again."""
    job = FakeJob({2: lambda: bytearray(2**30)}, Limits(memory_mb=64, retries=5))
    work = run(job, 3)
    assert work.states == {JobState.COMPLETED: 2, JobState.OUT_OF_MEMORY: 1}
    assert records(job, work)["reason"].tolist() == [0, Reason.OutOfMemory, 0]
    assert work.retries == []
    assert len(bytearray(2**30)) == 2**30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts what malloc maps on Linux only")
def test_what_earlier_jobs_keep_is_not_held_against_the_next() -> None:
    """Each job's limit begins with what the process has by then; of one that leaks nearly all of it, too."""
    kept: list[bytearray] = []

    def keep(megabytes: int) -> Callable[[], None]:
        return lambda: kept.append(bytearray(megabytes * 2**20))

    # More than this process can have freed and kept, from which it would be served.
    jobs = {index: keep(10) for index in range(1, 13)} | {13: keep(60), 14: keep(10), 15: keep(4096), 16: keep(10)}
    work = run(FakeJob(jobs, Limits(memory_mb=64)), 16)
    assert work.states == {JobState.COMPLETED: 15, JobState.OUT_OF_MEMORY: 1}
    assert list(work.failures) == [15]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), Own("words")], ids=repr
)
def test_whatever_is_raised_is_a_failure(error: BaseException) -> None:
    """Of the job, with its traceback, and tried again as any other; the next one runs."""
    work = run(FakeJob({2: throw(error)}), 3)
    assert work.states == {JobState.COMPLETED: 2, JobState.FAILED: 1}
    assert type(error).__name__ in work.failures[2]
    again = run(FakeJob({2: throw(error)}, Limits(retries=1)), 3)
    assert [(retry.first, retry.count) for retry in again.retries] == [(2, 1)]


def test_a_memory_error_without_a_limit_is_a_failure() -> None:
    """Nobody set a limit that it could have reached."""
    work = run(FakeJob({1: throw(MemoryError())}), 1)
    assert work.states == {JobState.FAILED: 1}


@pytest.mark.parametrize(
    ("given", "code"), [(3, 3), (0, 0), (-1, -1), (10**6, 32767), (-(10**6), -32768), ("a text", 1)]
)
def test_an_exit_is_a_failure_with_its_code(given: object, code: int) -> None:
    """A job that calls sys.exit ends itself and nothing else."""
    job = FakeJob({1: lambda: sys.exit(given)})  # type: ignore[arg-type]
    work = run(job, 2)
    assert work.states == {JobState.COMPLETED: 1, JobState.FAILED: 1}
    assert records(job, work)["exit"].tolist() == [code, 0]
    assert records(job, work)["reason"].tolist() == [Reason.NonZeroExitCode, 0]


def test_failures_that_may_be_tried_again_are_pending() -> None:
    """Neighbours share a retry; neither states nor kept errors speak of them; their attempt is in the record."""
    bad = dict.fromkeys((2, 3, 5), throw(ValueError("bad luck")))
    job = FakeJob(bad, Limits(retries=2, retry_delay_seconds=10.0))
    work = run(job, 6, attempt=4, tries=1)
    assert (work.done, work.states, work.failures) == (6, {JobState.COMPLETED: 3}, {})
    assert [(r.first, r.count, r.tries, r.base) for r in work.retries] == [(2, 2, 2, 2), (5, 1, 2, 2)]
    assert {r.text.partition(" (")[0] for r in work.retries} == {"ValueError: bad luck"}
    assert work.completed == [(1, 1), (4, 1), (6, 1)]
    assert records(job, work)["state"].tolist() == [2, 0, 0, 2, 0, 2]
    assert set(records(job, work)["attempt"]) == {4}
    assert work.moments["x"].n == 3  # type: ignore[attr-defined]


def test_the_last_try_is_final() -> None:
    """With as many tries as retries the failure is the job's end, and its error is kept."""
    work = run(FakeJob({1: throw(ValueError("bad luck"))}, Limits(retries=2)), 1, attempt=3, tries=2)
    assert (work.states, work.retries) == ({JobState.FAILED: 1}, [])
    assert "bad luck" in work.failures[1]


@pytest.mark.parametrize("tries", [0, 1, 3, 20])
def test_the_delay_doubles_and_has_an_end(tries: int) -> None:
    """With jitter, so that what failed together does not come back together."""
    job = FakeJob({1: throw(ValueError())}, Limits(retries=100, retry_delay_seconds=2.0))
    delays = [run(job, 1, attempt=tries + 1, tries=tries).retries[0].delay for _ in range(20)]
    middle = min(MOST_DELAY_SECONDS, 2.0 * 2**tries)
    assert all(middle * 0.5 <= delay <= middle * 1.5 for delay in delays)
    assert len(set(delays)) > 10


def test_being_told_to_stop_ends_the_slice_without_the_job(guard: Guard) -> None:
    """What was done before counts; the job that was stopped is as if it had not begun."""
    job = FakeJob({3: lambda: os.kill(os.getpid(), signal.SIGUSR1)})
    work = run(job, 9, guard)
    assert (work.done, work.states) == (2, {JobState.COMPLETED: 2})
    assert job.ran == [1, 2, 3]
    assert [index for index, _ in job.stored] == [1, 2]


def test_being_told_to_stop_at_the_first_job_gives_an_empty_slice() -> None:
    """There is nothing to commit."""
    work = run(FakeJob({1: throw(Interrupted())}), 5)
    assert (work.done, work.states, work.records, work.completed) == (0, {}, b"", [])


@pytest.mark.parametrize("count", range(7))
def test_a_shortened_slice_is_the_slice_of_its_first_jobs(count: int) -> None:
    """States, moments, errors, retries and completed runs are those of what is left."""
    on: dict[int, Callable[[], object]] = {2: throw(ValueError("two")), 5: throw(ValueError("five"))}
    for limits in (Limits(), Limits(retries=1)):
        job = FakeJob(on, limits)
        short = shortened(run(job, 6), job.outputs, count, limits, 0)
        good = [index for index in range(1, count + 1) if index not in on]
        assert (short.first, short.done, len(short.records)) == (1, count, count * short.record_size)
        assert short.states.get(JobState.COMPLETED, 0) == len(good)
        assert [i for first, n in short.completed for i in range(first, first + n)] == good
        bad = [index for index in on if index <= count]
        assert sorted(short.failures) == ([] if limits.retries else bad)
        again = [(2, "ValueError: two"), (5, "ValueError: five")][: len(bad)] if limits.retries else []
        assert [(retry.first, retry.text.partition(" (")[0]) for retry in short.retries] == again
        assert (short.moments["x"].n if good else 0) == len(good)  # type: ignore[attr-defined]


def test_the_board_sees_at_which_job_a_slice_is(tmp_path: Path) -> None:
    """Also its limits; and after the slice, that it is at none."""
    board = Board.create(tmp_path / "b", 2)
    board.write(1, os.getpid(), "7-x-1")
    seen = []
    job = FakeJob({3: lambda: seen.append(board.progress(1))}, Limits(time_seconds=100.0))
    before = time.monotonic()
    run_slice(job, 1, 4, seconds=60, attempt=5, tries=2, slot=9, stopping=lambda: False, recorder=board.recorder(1))
    [at] = seen
    assert (at.first, at.done, at.attempt, at.tries, at.limit_seconds) == (1, 2, 5, 2, 100.0)
    assert before <= at.since <= time.monotonic()
    assert at.record_size == record_dtype(job.outputs).itemsize
    assert (board.progress(1).done, board.progress(1).since) == (4, 0.0)
    assert len(board.records(1)) == 4 * at.record_size
    board.close()


def test_a_slice_ends_when_the_board_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much time is left: what is not on the board would be lost with the process."""
    monkeypatch.setattr("services.worker.board.RECORD_BYTES", 3 * record_dtype(FakeJob.outputs).itemsize + 1)
    board = Board.create(tmp_path / "b", 1)
    work = run_slice(
        FakeJob(), 1, 100, seconds=60, attempt=1, slot=9, stopping=lambda: False, recorder=board.recorder(0)
    )
    assert work.done == 3
    board.close()


def test_the_256th_attempt_runs_like_any_other() -> None:
    """A job may be tried, lost and requeued for ever; only the number in its record stops growing."""
    job = FakeJob()
    work = run(job, 1, attempt=256)
    assert records(job, work)["attempt"].tolist() == [255]
