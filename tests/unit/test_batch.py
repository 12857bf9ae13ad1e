"""What a batch is: its ranges, its derived state, its specification as JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.batch import (
    FAILED_STATES,
    INITIAL_RANGES,
    BatchSpec,
    JobState,
    batch_state,
    check,
    initial_ranges,
    range_text,
)
from common.errors import InvalidInput
from common.settings import MAX_JOBS, MAX_SEED


@given(st.integers(1, MAX_JOBS))
def test_initial_ranges_partition_exactly(jobs: int) -> None:
    """The ranges follow each other without gap or overlap, and their sizes differ by one at most."""
    ranges = initial_ranges(jobs)
    assert len(ranges) == min(jobs, INITIAL_RANGES)
    following = 1
    for first, count in ranges:
        assert first == following
        following += count
    assert following == jobs + 1
    sizes = {count for _, count in ranges}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("counters", "state"),
    [
        ({}, "COMPLETED"),
        ({JobState.COMPLETED: 5}, "COMPLETED"),
        ({JobState.PENDING: 1, JobState.COMPLETED: 4}, "PENDING"),
        ({JobState.PENDING: 1, JobState.RUNNING: 1, JobState.FAILED: 3}, "RUNNING"),
        ({JobState.PENDING: 1, JobState.FAILED: 3, JobState.CANCELLED: 1}, "PENDING"),
        *[({state: 1, JobState.ABORTED: 1, JobState.CANCELLED: 1}, "FAILED") for state in FAILED_STATES],
        ({JobState.ABORTED: 1, JobState.CANCELLED: 1, JobState.COMPLETED: 1}, "ABORTED"),
        ({JobState.CANCELLED: 1, JobState.COMPLETED: 9}, "CANCELLED"),
    ],
)
def test_batch_state(counters: dict[JobState, int], state: str) -> None:
    """The one rule: running, pending, failed, aborted, cancelled, completed, in this order."""
    assert batch_state(counters) == state
    assert batch_state(dict.fromkeys(JobState, 0) | counters) == state


def test_terminal_states() -> None:
    """PENDING and RUNNING change; every other state is for ever."""
    assert [state.name for state in JobState if not state.terminal] == ["PENDING", "RUNNING"]


def test_stored_numbers_never_change() -> None:
    """The numbers are in job tables that exist; a new state gets a new number."""
    assert [(state.value, state.name) for state in JobState][:9] == [
        (0, "PENDING"),
        (1, "RUNNING"),
        (2, "COMPLETED"),
        (3, "FAILED"),
        (4, "TIMEOUT"),
        (5, "OUT_OF_MEMORY"),
        (6, "NODE_FAIL"),
        (7, "CANCELLED"),
        (8, "ABORTED"),
    ]


@given(st.integers(1, 10**6), st.integers(1, MAX_JOBS), st.integers(0, MAX_SEED), st.booleans(), st.text())
def test_specification_survives_json(number: int, jobs: int, seed: int, startup: bool, name: str) -> None:
    """from_json is the inverse of to_json, for text and bytes."""
    spec = BatchSpec(number, jobs, seed, name, startup)
    assert BatchSpec.from_json(spec.to_json()) == spec
    assert BatchSpec.from_json(spec.to_json().encode()) == spec


def test_fields_of_a_newer_version_are_passed_over() -> None:
    """An older program reads a newer batch.json."""
    spec = BatchSpec(1, 2, 3)
    assert BatchSpec.from_json(json.dumps({**json.loads(spec.to_json()), "color": "red"})) == spec


def test_fields_of_an_older_version_get_their_defaults() -> None:
    """A newer program reads an older batch.json."""
    spec = BatchSpec.from_json('{"id": 1, "jobs": 2, "seed": 3}')
    assert (spec.simulation, spec.startup) == ("random_numbers", False)


@pytest.mark.parametrize("jobs", [0, -1, MAX_JOBS + 1])
def test_size_out_of_range(jobs: int) -> None:
    """A wrong number of jobs is InvalidInput that names the field."""
    with pytest.raises(InvalidInput) as caught:
        check(jobs, None, 0.0)
    assert caught.value.field == "jobs"


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seed_out_of_range(seed: int) -> None:
    """A wrong seed is InvalidInput that names the field."""
    with pytest.raises(InvalidInput) as caught:
        check(1, seed, 0.0)
    assert caught.value.field == "seed"


def test_limits_are_allowed() -> None:
    """The limits themselves are in range."""
    for jobs, seed in ((1, None), (MAX_JOBS, 0), (1, MAX_SEED)):
        check(jobs, seed, 0.0)


def test_range_text() -> None:
    """A range reads as Slurm writes it."""
    assert range_text(7, 42, 1) == "7_42"
    assert range_text(7, 1, 1000) == "7_[1-1000]"
