"""The ranges that a recovered batch still has to run: all that is not done, in few pieces."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import recovery
from common.recovery import gaps


@given(st.lists(st.booleans(), min_size=1, max_size=300))
@settings(deadline=None)
def test_gaps_are_exactly_what_is_not_done(done: list[bool]) -> None:
    """The ranges cover each job that is not done once, and no other; they are as few as possible and in order."""
    found = gaps(np.array(done))
    covered = [index for first, count in found for index in range(first, first + count)]
    assert covered == [index for index, is_done in enumerate(done, 1) if not is_done]
    assert all(first + count < following for (first, count), (following, _) in itertools.pairwise(found))


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=60),
    st.booleans(),
    st.integers(2, 12),
)
@settings(deadline=None)
def test_too_many_gaps_are_joined_over_the_shortest_runs(
    runs: list[tuple[int, int]], starts_done: bool, most: int
) -> None:
    """At most that many ranges cover all that is not done, in order, and run again as few done jobs as possible."""
    done = np.concatenate([np.repeat([starts_done, not starts_done], run) for run in runs])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "MOST_RANGES", most)
        found = gaps(done)
    assert len(found) <= most
    covered = np.zeros(len(done), dtype=bool)
    for first, count in found:
        assert not covered[first - 1 : first - 1 + count].any()
        covered[first - 1 : first - 1 + count] = True
    assert covered[~done].all()
    assert all(a + b < c for (a, b), (c, _) in itertools.pairwise(found))
    edges = np.flatnonzero(np.diff(np.concatenate(([True], done, [True])).astype(np.int8)))
    between = sorted(edges[2::2] - edges[1:-1:2])
    assert int((covered & done).sum()) == sum(between[: max(0, len(between) + 1 - most)])


def test_every_other_job_of_many_is_missing() -> None:
    """With the real limit: 20,000 gaps become 4096 ranges that cover them all."""
    done = np.arange(40_000) % 2 == 0
    found = gaps(done)
    assert len(found) == recovery.MOST_RANGES
    covered = np.concatenate([np.arange(first - 1, first - 1 + count) for first, count in found])
    assert len(np.unique(covered)) == len(covered)
    assert not set(np.flatnonzero(~done)) - set(covered)
