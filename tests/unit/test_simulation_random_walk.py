"""Walkers against exact probabilities of return for finitely many steps; see known_answers for the confidence."""

from math import comb

import numpy as np
import pytest

from common.simulations.random_walk import random_walk
from tests.unit.known_answers import Results, agrees, run

STEPS = 10
POLYA_3D = 0.3405373296


def at_origin(dimension: int, k: int) -> float:
    """The probability to be at the origin after 2k steps (Pólya, 1921)."""
    if dimension == 3:
        ways = sum(comb(k, i) ** 2 * comb(2 * i, i) for i in range(k + 1))
        return float(comb(2 * k, k) * ways / 36**k)
    return float((comb(2 * k, k) / 4**k) ** dimension)


def returned(dimension: int, steps: int) -> float:
    """The probability of a return within the steps, from u(n) = Σ f(k)·u(n−k) of the first returns f."""
    present = [at_origin(dimension, k) for k in range(steps // 2 + 1)]
    first = [0.0]
    for n in range(1, len(present)):
        first.append(present[n] - sum(first[k] * present[n - k] for k in range(1, n)))
    return sum(first)


@pytest.fixture(scope="module", params=[1, 2, 3])
def case(request: pytest.FixtureRequest) -> tuple[int, Results]:
    """200 jobs of 1000 walkers each."""
    return request.param, run(random_walk, 200, dimension=request.param, steps=STEPS)


def test_formulas_give_known_values() -> None:
    """By hand, by reflection on the line, and in the limit by Pólya's constant (Watson, 1939)."""
    assert [returned(d, 2) for d in (1, 2, 3)] == pytest.approx([1 / 2, 1 / 4, 1 / 6])
    assert returned(1, STEPS) == pytest.approx(1 - comb(10, 5) / 4**5)
    assert POLYA_3D - 0.05 < returned(3, 200) < POLYA_3D


def test_returned_is_exact(case: tuple[int, Results]) -> None:
    """A false alarm of one dimension has the probability 8e-6 (200 jobs)."""
    dimension, jobs = case
    assert agrees(jobs["returned"], returned(dimension, STEPS))


def test_mean_square_distance_is_the_steps(case: tuple[int, Results]) -> None:
    """In every dimension."""
    assert agrees(case[1]["mean_square_distance"], STEPS)


def test_wrong_returns_are_noticed(case: tuple[int, Results]) -> None:
    """Two steps more or less, another dimension, only the end, and the limit of infinitely many steps."""
    dimension, jobs = case
    limit = POLYA_3D if dimension == 3 else 1.0
    others = [returned(other, STEPS) for other in {1, 2, 3} - {dimension}]
    for wrong in [returned(dimension, STEPS - 2), returned(dimension, STEPS + 2), *others, limit]:
        assert not agrees(jobs["returned"], wrong)
    assert not agrees(jobs["returned"], at_origin(dimension, STEPS // 2))


def test_wrong_distances_are_noticed(case: tuple[int, Results]) -> None:
    """One step more or less, and a step along every axis at once."""
    dimension, jobs = case
    for wrong in [STEPS - 1, STEPS + 1, STEPS * (dimension + 1)]:
        assert not agrees(jobs["mean_square_distance"], wrong)


def test_walk_along_every_axis_at_once_is_noticed() -> None:
    """The usual mistake in space: a diagonal walk returns less often than one on the lattice."""
    rng = np.random.default_rng(1)
    position = np.cumsum(rng.choice([-1, 1], (STEPS, 3, 20_000)), axis=0)
    diagonal = ~position.any(axis=1)
    assert not agrees(diagonal.any(axis=0), returned(3, STEPS))


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_first_two_steps(dimension: int) -> None:
    """After one step nobody is back and everybody is 1 away; after two the distance is 0 or at least 2."""
    one = run(random_walk, 3, dimension=dimension, steps=1)
    assert not one["returned"].any()
    assert set(one["mean_square_distance"]) == {1.0}
    single = run(random_walk, 100, dimension=dimension, steps=2, walkers=1)
    assert set(single["mean_square_distance"]) <= {0.0, 2.0, 4.0}
    assert np.array_equal(single["returned"] == 1, single["mean_square_distance"] == 0)
