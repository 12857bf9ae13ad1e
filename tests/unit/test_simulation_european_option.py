"""The option's price against Black and Scholes' formula; see known_answers for the confidence."""

from math import erf, exp, log, sqrt
from typing import Any

import numpy as np
import pytest

from common.simulations.european_option import european_option
from tests.unit.known_answers import Results, agrees, run

AT_THE_MONEY = {"s0": 100.0, "strike": 100.0, "sigma": 0.2, "rate": 0.05, "maturity": 1.0}
FAR_OUT = {"s0": 80.0, "strike": 100.0, "sigma": 0.35, "rate": -0.01, "maturity": 2.5}
CASES = [
    {**market, "kind": kind, "antithetic": antithetic}
    for market in (AT_THE_MONEY, FAR_OUT)
    for kind in ("call", "put")
    for antithetic in (False, True)
]


def normal(x: float) -> float:
    """The standard normal distribution function."""
    return (1 + erf(x / sqrt(2))) / 2


def black_scholes(s0: float, strike: float, sigma: float, rate: float, maturity: float, kind: str = "call") -> float:
    """Equations (13) and (14) of Black and Scholes, 1973."""
    d1 = (log(s0 / strike) + (rate + sigma**2 / 2) * maturity) / (sigma * sqrt(maturity))
    d2 = d1 - sigma * sqrt(maturity)
    sign = 1 if kind == "call" else -1
    return sign * (s0 * normal(sign * d1) - strike * exp(-rate * maturity) * normal(sign * d2))


@pytest.fixture(scope="module")
def calls() -> Results:
    """400 jobs with the defaults: 4 million paths, a standard error of 0.007."""
    return run(european_option, 400)


def test_formula_gives_the_textbook_price() -> None:
    """J. C. Hull, "Options, Futures, and Other Derivatives", example 15.6: 4.76 and 0.81."""
    hull = (42.0, 40.0, 0.2, 0.1, 0.5)
    assert (round(black_scholes(*hull), 2), round(black_scholes(*hull, "put"), 2)) == (4.76, 0.81)
    assert black_scholes(**AT_THE_MONEY) == pytest.approx(10.450583572185565, abs=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['s0']:g}-{case['kind']}-{case['antithetic']}")
def test_price_is_black_and_scholes(case: dict[str, Any]) -> None:
    """Unbiased with and without antithetic draws; a false alarm of one case has the probability 6.8e-6."""
    exact = {name: value for name, value in case.items() if name != "antithetic"}
    assert agrees(run(european_option, 200, **case)["price"], black_scholes(**exact))


@pytest.mark.parametrize("antithetic", [False, True])
def test_stderr_is_the_spread_of_the_price(antithetic: bool) -> None:
    """Its square is the variance of the price, and √2 too much or too little would be noticed."""
    jobs = run(european_option, 400, antithetic=antithetic, paths=1_000)
    squared = (jobs["price"] - black_scholes(**AT_THE_MONEY)) ** 2
    assert agrees(squared - jobs["stderr"] ** 2, 0)
    assert not agrees(squared - 2 * jobs["stderr"] ** 2, 0)
    assert not agrees(squared - jobs["stderr"] ** 2 / 2, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda m: exp(m["rate"] * m["maturity"]) * black_scholes(**m), id="not discounted"),
        pytest.param(
            lambda m: black_scholes(**m | {"s0": m["s0"] * exp(m["sigma"] ** 2 / 2)}), id="drift without -σ²/2"
        ),
        pytest.param(lambda m: black_scholes(**m | {"s0": m["s0"] * exp(-m["rate"])}), id="drift without the rate"),
        pytest.param(lambda m: black_scholes(**m | {"sigma": m["sigma"] * 1.01}), id="volatility 1 % high"),
        pytest.param(lambda m: black_scholes(**m | {"sigma": m["sigma"] ** 2}), id="variance for volatility"),
        pytest.param(lambda m: black_scholes(**m | {"maturity": 252 / 256}), id="another count of days"),
        pytest.param(lambda m: black_scholes(**m, kind="put"), id="the put"),
    ],
)
def test_wrong_price_is_noticed(calls: Results, wrong: Any) -> None:
    """The check has the power to see each of these mistakes."""
    assert agrees(calls["price"], black_scholes(**AT_THE_MONEY))
    assert not agrees(calls["price"], wrong(AT_THE_MONEY))


def test_antithetic_draws_pay() -> None:
    """Twice the work for less than half the variance: a call's payoff is monotonic in its draw."""
    plain, pairs = run(european_option, 20), run(european_option, 20, antithetic=True)
    assert np.all(2 * pairs["stderr"] ** 2 < plain["stderr"] ** 2 * 1.1)
    assert pairs["stderr"].mean() < plain["stderr"].mean() / sqrt(2) * 1.02


@pytest.mark.parametrize(("kind", "strike"), [("call", 90.0), ("put", 120.0)])
def test_without_volatility_it_is_certain(kind: str, strike: float) -> None:
    """The stock is an account then: the price is the discounted difference, the error 0."""
    jobs = run(european_option, 1, sigma=0.0, strike=strike, kind=kind)
    certain = abs(100 - strike * exp(-0.05))
    assert jobs["price"][0] == pytest.approx(certain, rel=1e-12)
    assert jobs["stderr"][0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rate", [-1.0, 1.0])
def test_extremes_stay_finite(rate: float) -> None:
    """No overflow at the largest values, not as a warning either."""
    jobs = run(european_option, 1, s0=1e9, sigma=5.0, maturity=100.0, rate=rate, antithetic=True, kind="put")
    assert np.isfinite(jobs["price"][0])
    assert np.isfinite(jobs["stderr"][0])
