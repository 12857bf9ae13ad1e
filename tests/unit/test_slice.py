"""A slice: jobs in order until the time is over, each job's failure its own."""

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.batch import JobState
from common.errors import StorageUnavailable
from common.ledger.ranges import MAX_FAILURES_KEPT, Slice
from common.ledger.table import record_dtype
from common.statistics import moments
from services.worker.failure import MAX_ERROR_CHARACTERS
from services.worker.guard import Limits
from services.worker.slice import SliceFailure, run_slice

NO_LIMITS = Limits()


class FakeJob:
    """Gives (index, 1/index); what ``on`` holds for an index is called first."""

    outputs: Sequence[str] = ("x", "y")
    usage = None

    def __init__(
        self, on: dict[int, Callable[[], object]] | None = None, limits: Limits = NO_LIMITS, full_at: int = 0
    ) -> None:
        self.on = on or {}
        self.limits = limits
        self.full_at = full_at
        self.ran: list[int] = []
        self.attempts: list[int] = []
        self.stored: list[tuple[int, bytes]] = []

    def compute(self, index: int, attempt: int) -> tuple[bytes, tuple[float, ...]]:
        """Run one job."""
        self.ran.append(index)
        self.attempts.append(attempt)
        self.on.get(index, int)()
        return b"%d" % index, (float(index), 1 / index)

    def store(self, index: int, data: bytes) -> None:
        """Keep its result, if there is room."""
        if index == self.full_at:
            raise StorageUnavailable("disk full")
        self.stored.append((index, data))


def throw(error: BaseException) -> Callable[[], object]:
    """A function that raises this error."""

    def raise_it() -> object:
        raise error

    return raise_it


def run(job: FakeJob, first: int, count: int, seconds: float = 60.0, stopping: Callable[[], bool] = bool) -> Slice:
    """A slice with the arguments that matter here."""
    return run_slice(job, first, count, seconds=seconds, attempt=3, slot=9, stopping=stopping)


def test_runs_all_in_order() -> None:
    """With time enough every job runs once, in order, and has its record."""
    job = FakeJob()
    work = run(job, 11, 5)
    records = np.frombuffer(work.records, record_dtype(job.outputs))
    assert job.ran == [11, 12, 13, 14, 15]
    assert job.stored == [(index, b"%d" % index) for index in job.ran]
    assert set(job.attempts) == {3}
    assert work.completed == [(11, 5)]
    assert (work.first, work.done, work.states, work.failures) == (11, 5, {JobState.COMPLETED: 5}, {})
    assert records["out:x"].tolist() == [11, 12, 13, 14, 15]
    assert set(records["state"]) == {JobState.COMPLETED}
    assert set(records["attempt"]) == {3}
    assert set(records["slot"]) == {9}
    assert (records["elapsed"] >= 0).all()
    assert (np.diff(records["started"]) >= 0).all()
    assert (records["max_rss"] > 1000).all()
    assert 0 <= work.seconds < 60
    assert work.record_size == record_dtype(job.outputs).itemsize


def test_ends_when_the_time_is_over() -> None:
    """A slice of 20 ms of endless jobs ends soon after, at a job's boundary."""
    begin = time.perf_counter()
    work = run(FakeJob(), 1, 10**9, seconds=0.02)
    assert 0.02 <= time.perf_counter() - begin < 30
    assert 1 <= work.done < 10**9
    assert work.done * work.record_size == len(work.records)


def test_runs_at_least_one_job() -> None:
    """Even with no time and a stop asked for, one job runs: a range always moves."""
    job = FakeJob()
    assert run(job, 7, 100, seconds=0.0, stopping=lambda: True).done == 1
    assert job.ran == [7]


def test_stops_at_the_next_job_boundary() -> None:
    """Once ``stopping()`` is true no further job begins."""
    answers = itertools.chain([False, False, True], itertools.repeat(True))
    job = FakeJob()
    assert run(job, 1, 100, stopping=lambda: next(answers)).done == 3
    assert job.ran == [1, 2, 3]


@pytest.mark.parametrize("error", [ValueError("bad luck"), MemoryError(), ZeroDivisionError(), AssertionError()])
def test_failing_job_harms_no_other(error: Exception) -> None:
    """A job that raises is FAILED with the end of its traceback; the others complete."""
    job = FakeJob({2: throw(error)})
    work = run(job, 1, 4)
    records = np.frombuffer(work.records, record_dtype(job.outputs))
    assert job.ran == [1, 2, 3, 4]
    assert work.states == {JobState.COMPLETED: 3, JobState.FAILED: 1}
    assert records["state"].tolist() == [2, 3, 2, 2]
    assert np.isnan(records["out:x"]).tolist() == [False, True, False, False]
    assert type(error).__name__ in work.failures[2]
    assert work.moments["x"][0] == 3


def test_all_jobs_fail() -> None:
    """Without a completed job there are no moments."""
    work = run(FakeJob({1: throw(ValueError()), 2: throw(KeyError(1))}), 1, 2)
    assert (work.states, work.moments) == ({JobState.FAILED: 2}, {})


def test_no_more_error_texts_than_a_batch_keeps() -> None:
    """They are those of the first jobs that failed for good, and all jobs have their records."""
    count = MAX_FAILURES_KEPT + 10
    job = FakeJob({index: throw(ValueError(str(index))) for index in range(2, count + 1)})
    work = run(job, 1, count)
    assert work.states == {JobState.COMPLETED: 1, JobState.FAILED: count - 1}
    assert list(work.failures) == list(range(2, MAX_FAILURES_KEPT + 2))


def test_error_text_is_bounded() -> None:
    """A job cannot fill the ledger with its error; the end, which says what it was, is kept."""
    text = run(FakeJob({1: throw(ValueError("x" * 100_000 + "end"))}), 1, 1).failures[1]
    assert len(text) <= MAX_ERROR_CHARACTERS
    assert "xend (tests/unit/test_slice.py, line " in text.splitlines()[-1]


def test_storage_unavailable_ends_the_slice_with_what_was_done() -> None:
    """The job whose result could not be written is not counted; those before it are."""
    job = FakeJob(full_at=4)
    with pytest.raises(SliceFailure) as caught:
        run(job, 2, 10)
    assert caught.value.reason.message == "disk full"
    assert (caught.value.work.first, caught.value.work.done) == (2, 2)
    assert caught.value.work.states == {JobState.COMPLETED: 2}
    assert job.ran == [2, 3, 4]
    assert job.stored == [(2, b"2"), (3, b"3")]


def test_storage_unavailable_at_once() -> None:
    """When not even the first result can be written the slice is empty."""
    with pytest.raises(SliceFailure) as caught:
        run(FakeJob(full_at=1), 1, 10)
    assert (caught.value.work.done, caught.value.work.records, caught.value.work.states) == (0, b"", {})


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_moments_equal_numpy(values: list[float]) -> None:
    """Count, mean, squared deviations, minimum and maximum are NumPy's."""
    array = np.array(values)
    n, mean, m2, low, high = moments(array)
    assert (n, mean, low, high) == (len(values), array.mean(), array.min(), array.max())
    assert m2 == pytest.approx(array.var() * n, rel=1e-9, abs=1e-9)


def test_moments_of_a_slice() -> None:
    """Each output has its own moments over the completed jobs."""
    work = run(FakeJob({3: throw(ValueError())}), 1, 5)
    x = np.array([1.0, 2, 4, 5])
    for name, values in (("x", x), ("y", 1 / x)):
        n, mean, m2, low, high = work.moments[name]
        assert (n, low, high) == (4, values.min(), values.max())
        assert mean == pytest.approx(values.mean())
        assert m2 == pytest.approx(((values - values.mean()) ** 2).sum())
