"""The epidemic against exact distributions of its final size; see known_answers for the confidence."""

from math import comb, exp
from typing import Any

import numpy as np
import pytest

from common.simulations.sir_epidemic import sir_epidemic
from tests.unit.known_answers import Results, agrees, declared, run

JOBS = 10_000
SMALL: dict[str, Any] = {"population": 8, "infected": 2, "r0": 1.5}


def final_sizes(population: int, infected: int, r0: float, recovery: float) -> list[float]:
    """The probabilities that 0, 1, … of those susceptible at the start are ever infected (Ball, 1986).

    One infectious leaves j susceptibles alone with the probability φ(j), the mean of exp(−contact·j·time) over
    the geometric infectious time; for all k, Σ comb(n − i, k − i)·P(i)/φ(n − k)^(i + infected) = comb(n, k).
    """
    n = population - infected

    def spared(j: int) -> float:
        step = exp(-r0 * recovery / population * j)
        return step * recovery / (1 - (1 - recovery) * step)

    found: list[float] = []
    for k in range(n + 1):
        phi = spared(n - k)
        known = sum(comb(n - i, k - i) * p / phi ** (i + infected) for i, p in enumerate(found))
        found.append((comb(n, k) - known) * phi ** (k + infected))
    return found


def large(r0: float, infected: float) -> float:
    """The final size in a large population, 1 − z = (1 − infected)·exp(−r0·z) (Kermack, McKendrick, 1927)."""
    z = 1.0
    for _ in range(500):
        z = 1 - (1 - infected) * exp(-r0 * z)
    return z


@pytest.fixture(scope="module", params=[1.0, 0.3])
def small(request: pytest.FixtureRequest) -> tuple[float, Results]:
    """Reed and Frost's model and one with a geometric infectious time, in eight people of whom two begin."""
    return request.param, run(sir_epidemic, JOBS, **SMALL, recovery=request.param)


@pytest.fixture(scope="module")
def outbreaks() -> Results:
    """100 major outbreaks in 100 000 people; with 1000 at the start none dies out early."""
    return run(sir_epidemic, 100, population=100_000, infected=1_000, r0=2.0, recovery=0.5)


def test_formulas_give_known_values() -> None:
    """By hand: three people in Reed and Frost's model, with the escape probability q."""
    q = exp(-1.2 / 3)
    by_hand = [q**2, 2 * (1 - q) * q**2, 1 - q**2 - 2 * (1 - q) * q**2]
    assert final_sizes(3, 1, 1.2, 1.0) == pytest.approx(by_hand)
    assert sum(final_sizes(**SMALL, recovery=0.3)) == pytest.approx(1)
    assert large(2.0, 0.0) == pytest.approx(0.796812, abs=1e-6)


def counts(jobs: Results) -> np.ndarray:
    """How many of those susceptible at the start were infected."""
    return np.rint(jobs["final_size"] * SMALL["population"]) - SMALL["infected"]


def test_final_size_has_its_exact_distribution(small: tuple[float, Results]) -> None:
    """Each of the seven probabilities and the mean; a false alarm of one has the probability 7e-6."""
    recovery, jobs = small
    exact = final_sizes(**SMALL, recovery=recovery)
    for k, probability in enumerate(exact):
        assert agrees(counts(jobs) == k, probability)
    assert agrees(counts(jobs), float(np.arange(7) @ exact))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"r0": 1.5 * 0.95}, id="r0 5 % low"),
        pytest.param({"r0": 1.5 * 1.05}, id="r0 5 % high"),
        pytest.param({"r0": 1.5 * 8 / 7}, id="contacts among the others only"),
        pytest.param({"r0": 1.5 * 8 / 6}, id="contacts among the susceptible only"),
        pytest.param({"infected": 1, "population": 7}, id="one at the start forgotten"),
    ],
)
def test_wrong_final_size_is_noticed(small: tuple[float, Results], wrong: dict[str, Any]) -> None:
    """The check of the mean has the power to see each of these mistakes."""
    recovery, jobs = small
    exact = final_sizes(**(SMALL | wrong), recovery=recovery)
    assert not agrees(counts(jobs), float(np.arange(7) @ exact))


def test_wrong_infectious_time_is_noticed(small: tuple[float, Results]) -> None:
    """A time of the same mean but another distribution changes the spread, which the check of P(0) sees."""
    recovery, jobs = small
    fixed = final_sizes(**SMALL, recovery=1.0 if recovery < 1 else 0.3)
    assert not agrees(counts(jobs) == 0, fixed[0])


def test_large_population_has_the_final_size_of_kermack_and_mckendrick(outbreaks: Results) -> None:
    """A false alarm has the probability 2e-5 (100 jobs)."""
    assert agrees(outbreaks["final_size"], large(2.0, 0.01))


def test_wrong_large_population_is_noticed(outbreaks: Results) -> None:
    """r0 off by 1 %, those at the start forgotten or counted twice, and r0 taken as a rate."""
    for wrong in [large(1.98, 0.01), large(2.02, 0.01), large(2.0, 0.0), large(2.0, 0.02), 1 - 1 / 2.0]:
        assert not agrees(outbreaks["final_size"], wrong)


def test_extinction_is_that_of_a_branching_process() -> None:
    """From one case the outbreak stays minor with the q of q = exp(−r0·(1 − q)), 0.2032 for r0 = 2."""
    jobs = run(sir_epidemic, 2_000, population=100_000, infected=1, r0=2.0, recovery=1.0)
    minor = jobs["final_size"] < 0.1
    assert agrees(minor, 0.203188)
    assert not agrees(minor, 1 / 2)


def test_duration_without_contacts_is_that_of_the_slowest() -> None:
    """The largest of three geometric times; nobody else is infected."""
    jobs = run(sir_epidemic, 5_000, population=10, infected=3, r0=0.0, recovery=0.25)
    slowest = sum((-1) ** (j + 1) * comb(3, j) / (1 - 0.75**j) for j in (1, 2, 3))
    assert agrees(jobs["duration"], slowest)
    assert not agrees(jobs["duration"], slowest - 1)
    assert not agrees(jobs["duration"], 1 / 0.25)
    assert set(jobs["final_size"]) == set(jobs["peak"]) == {0.3}


def test_peak_of_three_people() -> None:
    """Two are infectious at once only if the first one infects both; with Reed and Frost nobody else overlaps."""
    jobs = run(sir_epidemic, 5_000, population=3, infected=1, r0=1.2, recovery=1.0)
    q = exp(-1.2 / 3)
    assert agrees(jobs["peak"] > 0.5, (1 - q) ** 2)
    assert not agrees(jobs["peak"] > 0.5, 1 - q**2)
    assert set(jobs["duration"]) == {1.0, 2.0, 3.0}


def test_more_infected_than_people_is_refused() -> None:
    """The message names both parameters."""
    with pytest.raises(ValueError, match=r"infected is 11.*population, 10"):
        declared(sir_epidemic).function(np.random.default_rng(1), population=10, infected=11, r0=1.0, recovery=1.0)


def test_largest_population() -> None:
    """A thousand million people cost no more than ten; all of them are met with the largest r0."""
    jobs = run(sir_epidemic, 1, population=10**9, infected=10**6, r0=100.0, recovery=1.0)
    assert jobs["final_size"][0] == 1.0
