"""The magnet against enumerations of small lattices, Onsager and Yang; see known_answers for the confidence."""

from math import exp, log, pi, sinh, sqrt, tanh
from typing import NamedTuple

import numpy as np
import pytest

from common.simulations.ising_2d import ising_2d
from tests.unit.known_answers import Results, agrees, run

CRITICAL = 2 / log(1 + sqrt(2))


class Answer(NamedTuple):
    """The means in equilibrium, per spin."""

    energy: float
    magnetisation: float


def enumerated(size: int, temperature: float) -> Answer:
    """Boltzmann's means over all states of a small torus."""
    codes = np.arange(2 ** (size * size))
    spins = (1 - 2 * (codes[:, None] >> np.arange(size * size) & 1)).reshape(-1, size, size)
    energy = -(spins * (np.roll(spins, 1, axis=1) + np.roll(spins, 1, axis=2))).sum(axis=(1, 2))
    weight = np.exp(-(energy - energy.min()) / temperature)
    weight /= weight.sum() * size**2
    return Answer(float(weight @ energy), float(weight @ np.abs(spins.sum(axis=(1, 2)))))


def onsager(temperature: float) -> float:
    """The energy per spin of the infinite lattice (Onsager, 1944, equation 116).

    The complete elliptic integral is π/2 through the arithmetic-geometric mean.
    """
    k = 1 / temperature
    double = 2 * tanh(2 * k) ** 2 - 1
    a, b = 1.0, abs(double)
    while abs(a - b) > 1e-15:
        a, b = (a + b) / 2, sqrt(a * b)
    return -(1 + 2 / pi * double * pi / (2 * a)) / tanh(2 * k)


def yang(temperature: float) -> float:
    """The magnetisation of the infinite lattice below the critical temperature (Yang, 1952)."""
    return float((1 - sinh(2 / temperature) ** -4) ** 0.125)


@pytest.fixture(scope="module", params=[(2, 4.0), (4, 1.8), (4, 2.5), (4, 5.0)], ids=str)
def small(request: pytest.FixtureRequest) -> tuple[int, float, Results]:
    """150 jobs on a lattice small enough to enumerate; they forget their start within a few sweeps."""
    size, temperature = request.param
    return size, temperature, run(ising_2d, 150, size=size, temperature=temperature, sweeps=80, burn_in=40)


@pytest.fixture(scope="module")
def cold() -> Results:
    """100 jobs below the critical temperature; the lattice is 14 correlation lengths wide."""
    return run(ising_2d, 100, size=32, temperature=2.0, sweeps=60, burn_in=40)


@pytest.fixture(scope="module")
def hot() -> Results:
    """100 jobs above it; the lattice is 15 correlation lengths wide."""
    return run(ising_2d, 100, size=32, temperature=3.0, sweeps=60, burn_in=40)


def test_formulas_give_known_values() -> None:
    """The torus of four spins by hand; Onsager's −√2 at the critical temperature and −2 in the cold."""
    high, low = exp(8 / 4.0), exp(-8 / 4.0)
    z = 2 * high + 2 * low + 12
    by_hand = Answer(-4 * (high - low) / z, (2 * high + 4) / z)
    assert enumerated(2, 4.0) == pytest.approx(by_hand)
    assert onsager(CRITICAL) == pytest.approx(-sqrt(2))
    assert onsager(0.1) == pytest.approx(-2)
    assert yang(2.0) == pytest.approx(0.911319, abs=1e-6)


@pytest.mark.parametrize("output", Answer._fields)
def test_small_lattice_is_exact(small: tuple[int, float, Results], output: str) -> None:
    """A false alarm of one of the eight has the probability 9e-6 (150 jobs)."""
    size, temperature, jobs = small
    assert agrees(jobs[output], getattr(enumerated(size, temperature), output))


@pytest.mark.parametrize("output", Answer._fields)
def test_wrong_small_lattice_is_noticed(small: tuple[int, float, Results], output: str) -> None:
    """A temperature off by 10 %, bonds of half the strength, and the other outputs of the same lattice."""
    size, temperature, jobs = small
    for factor in (0.9, 1.1, 2.0):
        assert not agrees(jobs[output], getattr(enumerated(size, temperature * factor), output))


def test_infinite_lattice(cold: Results, hot: Results) -> None:
    """Onsager's energy on both sides of the transition, and Yang's magnetisation below it."""
    assert agrees(cold["energy"], onsager(2.0))
    assert agrees(cold["magnetisation"], yang(2.0))
    assert agrees(hot["energy"], onsager(3.0))


def test_wrong_infinite_lattice_is_noticed(cold: Results, hot: Results) -> None:
    """A temperature off by 2 %, and Yang's formula with another power."""
    for factor in (0.98, 1.02):
        assert not agrees(cold["energy"], onsager(2.0 * factor))
        assert not agrees(cold["magnetisation"], yang(2.0 * factor))
        assert not agrees(hot["energy"], onsager(3.0 * factor))
    assert not agrees(cold["magnetisation"], (1 - sinh(1.0) ** -4) ** 0.25)
    # The mean field of four neighbours: m = tanh(4m/T) is 0.9575 here.
    assert not agrees(cold["magnetisation"], 0.9575)


def test_forgotten_burn_in_is_noticed() -> None:
    """The ordered start is far from equilibrium: without the sweeps before, the check fails."""
    jobs = run(ising_2d, 60, size=32, temperature=3.0, sweeps=10, burn_in=0)
    assert not agrees(jobs["energy"], onsager(3.0))


def metropolis(rng: np.random.Generator, temperature: float, sweeps: int) -> float:
    """The energy per spin of four spins under Metropolis' rule on a checkerboard."""
    spins = np.ones((2, 2), dtype=np.int64)
    white = np.indices((2, 2)).sum(axis=0) % 2 == 1
    total = 0
    for _ in range(sweeps):
        for colour in (white, ~white):
            sums = 2 * (np.roll(spins, 1, axis=0) + np.roll(spins, 1, axis=1))
            flip = colour & (rng.random((2, 2)) < np.exp(np.minimum(0, -2 * spins * sums / temperature)))
            spins = np.where(flip, -spins, spins)
        total -= int((spins * (np.roll(spins, 1, axis=0) + np.roll(spins, 1, axis=1))).sum())
    return total / (4 * sweeps)


def test_metropolis_on_a_checkerboard_is_noticed() -> None:
    """Why the heat bath: with Metropolis' rule states are missing, and the energy is wrong however long it runs."""
    rng = np.random.default_rng(1)
    energies = [metropolis(rng, 4.0, 50) for _ in range(60)]
    assert not agrees(energies, enumerated(2, 4.0).energy)


def test_limits_of_temperature() -> None:
    """In the cold the start stays; in the greatest heat all spins are independent. No overflow in between."""
    frozen = run(ising_2d, 1, size=8, temperature=0.01, sweeps=5)
    assert (frozen["energy"][0], frozen["magnetisation"][0]) == (-2.0, 1.0)
    free = run(ising_2d, 100, size=16, temperature=1e6, sweeps=20)
    assert agrees(free["energy"], 0)
