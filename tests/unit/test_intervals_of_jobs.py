"""Intervals of jobs: united, taken out of each other, and runs put into steps."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from common.batch import JobState
from common.ledger.control import Run
from common.notes import united, without
from common.requeue import MOST_JOBS, MOST_RUNS, steps

INTERVALS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), max_size=8)


def jobs(intervals: list[tuple[int, int]]) -> list[int]:
    """The jobs of these intervals, one after the other."""
    return [job for first, count in intervals for job in range(first, first + count)]


def assert_least(found: list[tuple[int, int]]) -> None:
    """They are in order and apart."""
    assert all(sum(one) < other[0] for one, other in itertools.pairwise(found))
    assert all(count > 0 for _, count in found)


@given(INTERVALS)
def test_united(intervals: list[tuple[int, int]]) -> None:
    """The same jobs, each once."""
    found = united(intervals)
    assert jobs(found) == sorted(set(jobs(intervals)))
    assert_least(found)


@given(INTERVALS, INTERVALS)
def test_without(intervals: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    """Exactly those that are not among the others."""
    found = without(intervals, others)
    assert jobs(found) == sorted(set(jobs(intervals)) - set(jobs(others)))
    assert_least(found)


@given(st.lists(st.sampled_from([1, 10, 65_536]), max_size=50).map(lambda sizes: sizes * 100))
def test_steps_are_small_enough_and_as_few_as_that(sizes: list[int]) -> None:
    """All runs, in order; no step is too large, and none could have taken the next one's first run."""
    runs: list[Run] = [(number, size, JobState.FAILED, 1) for number, size in enumerate(sizes)]
    found = list(steps(runs))
    assert [run for step in found for run in step] == runs
    sums = [sum(count for _, count, *_ in step) for step in found]
    assert all(0 < len(step) <= MOST_RUNS and jobs <= MOST_JOBS for step, jobs in zip(found, sums, strict=True))
    for step, jobs, after in zip(found, sums, found[1:], strict=False):
        assert len(step) == MOST_RUNS or jobs + after[0][1] > MOST_JOBS
