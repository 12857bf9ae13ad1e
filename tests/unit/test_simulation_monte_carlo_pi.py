"""The estimate of π has the mean and the variance of a binomial count; see known_answers for the confidence."""

from math import pi

import numpy as np
import pytest

from common.simulations.monte_carlo_pi import monte_carlo_pi
from tests.unit.known_answers import Results, agrees, run

POINTS = 100_000
VARIANCE = pi * (4 - pi) / POINTS


@pytest.fixture(scope="module")
def jobs() -> Results:
    """400 jobs: 40 million points, a standard error of 0.00026."""
    return run(monte_carlo_pi, 400, points=POINTS)


def test_mean_is_pi(jobs: Results) -> None:
    """Unbiased; a false alarm has the probability 6.8e-6."""
    assert agrees(jobs["pi"], pi)


def test_variance_is_that_of_a_binomial(jobs: Results) -> None:
    """Points that repeat or that repel each other would change it, and not the mean."""
    assert agrees((jobs["pi"] - pi) ** 2, VARIANCE)


def test_jobs_are_independent(jobs: Results) -> None:
    """The errors of neighbouring jobs are not correlated."""
    error = jobs["pi"] - pi
    assert agrees(error[::2] * error[1::2], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(pi * 1.001, id="0.1 % high"),
        pytest.param(pi * 0.999, id="0.1 % low"),
        pytest.param(2**0.5 + 3**0.5, id="the root of 2 and the root of 3"),
        pytest.param(10**0.5, id="the root of 10"),
    ],
)
def test_wrong_mean_is_noticed(jobs: Results, wrong: float) -> None:
    """The check has the power to see one part in a thousand."""
    assert not agrees(jobs["pi"], wrong)


@pytest.mark.parametrize("wrong", [VARIANCE / 2, VARIANCE * 2, pi**2 / POINTS])
def test_wrong_variance_is_noticed(jobs: Results, wrong: float) -> None:
    """Half as many points, twice as many, and a Poisson count instead of a binomial one."""
    assert not agrees((jobs["pi"] - pi) ** 2, wrong)


def test_counts_fit_the_estimate(jobs: Results) -> None:
    """``pi`` follows from ``inside`` exactly."""
    assert np.array_equal(jobs["pi"], 4 * jobs["inside"] / POINTS)


def test_one_point() -> None:
    """The smallest job is right or wrong by a whole 4."""
    assert set(run(monte_carlo_pi, 50, points=1)["pi"]) == {0.0, 4.0}
