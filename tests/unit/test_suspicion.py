"""Results that look as if the simulation did not draw from its generator; and those that only look alike by chance."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import suspicion
from common.batch import BatchSpec, JobState
from common.jobs import Jobs
from common.ledger.table import record_dtype
from common.samples import Samples
from common.simulations import registry
from common.suspicion import Rows, identical, on_grid

RNG = np.random.default_rng(1)


@pytest.fixture(autouse=True)
def _same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each test, whatever ran before it."""
    monkeypatch.setattr(f"{__name__}.RNG", np.random.default_rng(1))


def shared(*columns: np.ndarray, pieces: int = 3) -> float:
    """What :class:`Rows` says of jobs with these outputs, taken in in several pieces."""
    names = [f"o{number}" for number in range(len(columns))]
    records = np.zeros(len(columns[0]), dtype=record_dtype(names))
    records["state"] = JobState.COMPLETED
    for name, values in zip(names, columns, strict=True):
        records[f"out:{name}"] = values
    found = Rows(names)
    for piece in np.array_split(records, pieces):
        found.add(piece)
    return found.shared()


def test_few_seeds_are_seen() -> None:
    """Normal values from a hundred seeds; or of the jobs of one second the same."""
    drawn = RNG.normal(size=100)
    assert shared(drawn[RNG.integers(0, 100, 2000)]) == pytest.approx(1.0, abs=0.01)
    assert shared(np.repeat(drawn, 20), np.repeat(drawn**2, 20)) == 1.0
    half = np.concatenate((RNG.normal(size=1000), np.repeat(drawn, 10)))
    assert shared(half) == pytest.approx(0.5)
    assert shared(np.repeat(RNG.normal(size=2), 50)) == 1.0


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=2000),
        RNG.integers(0, 50, 2000).astype(float),
        RNG.integers(10, 1000, 2000) / 10,
        4 * RNG.integers(0, 3000, 20_000) / 3000,
        RNG.integers(0, 2, 2000).astype(float),
        np.exp(-0.05) * RNG.integers(0, 2, 2000),
        np.maximum(RNG.normal(size=2000), 0.0),
        np.full(2000, 0.123),
        np.full(2000, np.nan),
        np.where(RNG.random(2000) < 0.9, np.inf, 1.5),
        RNG.normal(size=5),
        np.array([]),
    ],
    ids=["continuous", "counts", "means of counts", "parts of 3000", "yes or no", "discounted", "payoffs", "constant",
         "nan", "infinity", "five", "nothing"],
)  # fmt: skip
def test_chance_is_not_suspected(values: np.ndarray) -> None:
    """Equal outcomes of a discrete output, or one outcome that is common; constants are another matter."""
    assert shared(values) <= 0.5


def distances(jobs: int, dimension: int) -> np.ndarray:
    """How far from the origin walks of fifty steps on a lattice end."""
    steps = RNG.integers(2 * dimension, size=(jobs, 50))
    ends = [(steps == 2 * axis).sum(axis=1) - (steps == 2 * axis + 1).sum(axis=1) for axis in range(dimension)]
    found: np.ndarray = np.sqrt(np.square(ends).sum(axis=0))
    return found


@pytest.mark.parametrize("jobs", [50, 400, 20_000])
def test_what_is_calculated_from_counts_is_not_suspected(jobs: int) -> None:
    """Distances on a lattice, logarithms and reciprocals; of uneven outcomes and of few ones whatever it is."""
    die = RNG.integers(1, 7, jobs)
    for values in (distances(jobs, 2), distances(jobs, 3), np.log(die), -np.log(die), 2.5 / die, np.sin(die)):
        assert shared(values) == 0.0
    assert shared(distances(jobs, 2), np.log(die)) == 0.0
    if jobs > 10_000:
        assert shared(np.sin(distances(jobs, 2))) == 0.0


@pytest.mark.parametrize("jobs", [50, 400, 20_000])
def test_seeds_from_the_index_or_the_clock_are_seen(jobs: int) -> None:
    """Pairs of jobs; a few seconds; and always the same seeds in turn, when there are enough jobs to tell."""
    drawn, index = RNG.normal(size=jobs), np.arange(jobs)
    assert shared(drawn[index // 2]) == 1.0
    assert shared(np.log(np.abs(drawn))[index // 2], drawn[index // 2]) == 1.0
    assert shared(drawn[index * 4 // jobs], pieces=1) == 1.0
    if jobs >= 400:
        assert shared(drawn[index % 8]) == 1.0


def test_points_of_few_outcomes_are_no_sign_of_order() -> None:
    """A sweep's neighbours are of one point, and its outcomes are its own."""
    records = np.zeros(100, dtype=record_dtype(["x"]))
    records["state"], records["out:x"] = JobState.COMPLETED, np.repeat(RNG.normal(size=4), 25)
    found = Rows(["x"])
    found.add(records)
    assert (found.shared(neighbours=True), found.shared(neighbours=False)) == (1.0, 0.0)


def test_one_output_of_two_may_be_discrete() -> None:
    """A job's whole row counts: with a continuous output beside it, equal counts are no equal rows."""
    counts = RNG.integers(0, 5, 1000).astype(float)
    assert shared(counts, RNG.normal(size=1000)) == 0.0
    seeds = RNG.integers(0, 50, 1000)
    assert shared(counts[seeds], RNG.normal(size=50)[seeds]) == 1.0


def test_jobs_that_did_not_complete_say_nothing() -> None:
    """Their outputs are no results."""
    records = np.zeros(100, dtype=record_dtype(["x"]))
    records["state"], records["out:x"] = JobState.FAILED, np.repeat(RNG.normal(size=10), 10)
    found = Rows(["x"])
    found.add(records)
    assert found.shared() == 0.0


@pytest.mark.parametrize("seeds", [3000, 10**9])
def test_many_jobs_in_little_memory(monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
    """Of more distinct rows than are kept a sample stands for all."""
    monkeypatch.setattr(suspicion, "MOST_ROWS", 500)
    drawn = np.random.default_rng(2).integers(0, seeds, 30_000)
    assert shared(np.sin(drawn + 0.5), pieces=7) == pytest.approx(1.0 if seeds < 10_000 else 0.0, abs=0.02)


@example(1, 15, [282, 1610, 2757, 2758])
@given(st.integers(1, 10_000), st.integers(1, 10_000), st.lists(st.integers(0, 10_000), min_size=1, max_size=50))
def test_multiples_of_any_step_are_on_a_grid(over: int, under: int, counts: list[int]) -> None:
    """Whatever the step is, and whichever multiples there are."""
    assert on_grid(np.array(counts) * (over / under))
    assert on_grid(np.array(counts) / under * over)


@given(st.integers(0, 2**32))
def test_drawn_values_are_on_no_grid(seed: int) -> None:
    """A handful of normal values."""
    assert not on_grid(np.random.default_rng(seed).normal(size=8))


def test_points_whose_jobs_all_gave_the_same() -> None:
    """At least ten, in every output; what is not finite in all jobs does not hide it, what is in some does."""
    counts = np.array([10, 9, 10, 0, 10, 10])
    x = np.ones(49)
    x[25] = 2.0
    y = np.arange(6).repeat(counts).astype(float)
    y[-10:] = np.nan
    x[29] = np.nan
    assert identical(Samples(counts, {"x": x, "y": y})).tolist() == [True, False, False, False, False, True]
    assert identical(Samples(np.array([10]), {"x": np.full(10, np.nan)})).tolist() == [False]


@pytest.mark.parametrize("name", [name for name in registry.BUILT_IN if name != "faulty"])
def test_no_built_in_simulation_is_suspected(name: str) -> None:
    """With their defaults, three hundred jobs each."""
    found = registry.find(name)
    jobs = Jobs(BatchSpec(1, 300, 42, simulation=name, outputs=tuple(found.outputs)))
    values = np.array([jobs.result(index)[1] for index in range(1, 301)])
    assert shared(*values.T) <= 0.5
    columns = {str(number): column for number, column in enumerate(values.T)}
    assert not identical(Samples(np.array([300]), columns)).any()
