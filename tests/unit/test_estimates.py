"""Estimates say what NumPy and SciPy say, and stop rules end what is good enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.errors import InvalidInput
from common.estimates import estimate, half_width, histogram
from common.statistics import Moments, moments
from common.stopping import StopRule

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(FINITE, min_size=2, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_as_numpy_and_scipy_say(values: list[float], confidence: float) -> None:
    sample = np.array(values)
    found = estimate(sample, confidence=confidence)
    assert found.mean == sample.mean()
    assert found.standard_deviation == sample.std(ddof=1)
    assert found.quantiles["0.5"] == np.quantile(sample, 0.5)
    if found.standard_error > 0:
        low, high = stats.t.interval(confidence, len(sample) - 1, loc=sample.mean(), scale=stats.sem(sample))
        assert (found.ci_low, found.ci_high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    assert sum(found.histogram["counts"]) == len(sample)
    half = half_width(moments(sample), confidence)
    assert half == pytest.approx((found.ci_high - found.ci_low) / 2, rel=1e-6, abs=1e-9)


@given(st.lists(st.sampled_from([1.0, 2.0, np.nan, np.inf, -np.inf]), max_size=20))
def test_what_is_not_finite_is_counted_and_not_averaged(values: list[float]) -> None:
    found = estimate(np.array(values))
    finite = [value for value in values if np.isfinite(value)]
    assert (found.count, found.non_finite) == (len(finite), len(values) - len(finite))
    assert found.to_dict()["mean"] == (pytest.approx(np.mean(finite)) if finite else None)


def test_one_value_has_no_interval() -> None:
    found = estimate(np.array([3.0])).to_dict()
    assert (found["mean"], found["ci_low"], found["standard_deviation"]) == (3.0, None, None)


def sample(n: int, deviation: float, mean: float = 10.0) -> dict[str, Moments]:
    """Moments of ``n`` values with this mean and standard deviation."""
    return {"x": Moments(n, mean, deviation**2 * (n - 1), mean - 1, mean + 1)}


@pytest.mark.parametrize(
    ("rule", "found", "met"),
    [
        ("ci_halfwidth(x) < 0.1", sample(10_000, 1.0), True),
        ("ci_halfwidth(x) < 0.1", sample(300, 1.0), False),
        ("ci_halfwidth(x) < 1 %", sample(10_000, 1.0), True),
        ("ci_halfwidth(x) < 1 %", sample(10_000, 1.0, mean=0.1), False),
        ("standard_error(x) < 0.011", sample(10_000, 1.0), True),
        ("standard_error(x) < 0.009", sample(10_000, 1.0), False),
        ("ci_halfwidth(x) < 0.1 and n >= 20000", sample(10_000, 1.0), False),
        ("ci_halfwidth(x) < 0.1 and n >= 10000", sample(10_000, 1.0), True),
        ("ci_halfwidth(x) < 0.1 and n >= 10001", sample(10_000, 1.0), False),
        ("ci_halfwidth(x) < 0.1", sample(99, 0.0), False),
        ("count(x) >= 50", sample(50, 1.0), True),
        ("count(x) >= 1", sample(1, 1.0), True),
        ("count(x) >= 50 and n >= 60", sample(59, 1.0), False),
        ("count(x) >= 50 and n >= 60", sample(60, 1.0), True),
        ("ci_halfwidth(y) < 0.1", sample(10_000, 1.0), False),
    ],
)
def test_stop_rules(rule: str, found: dict[str, Moments], met: bool) -> None:
    assert StopRule.parse(rule).met(found) is met


@pytest.mark.parametrize(
    "text", ["", "x", "ci_halfwidth(x)", "ci_halfwidth(x) < 0", "ci_halfwidth(x) < -1", "mean(x) < 1", "count(x) < 5",
             "ci_halfwidth(x) >= 1", "ci_halfwidth(x) < 1e", "ci_halfwidth(x) < 0.1; import os",
             "count(x) >= 50 %", "count(x) >= 1e400", "ci_halfwidth(x) < 1e400"],
)  # fmt: skip
def test_wrong_rules_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        StopRule.parse(text)
    assert refused.value.field == "until"


def test_the_rule_looks_at_what_was_measured() -> None:
    """The half-width of a sample, by SciPy, on both sides of the limit."""
    values = np.random.default_rng(1).normal(size=1000)
    low, high = stats.t.interval(0.95, 999, loc=values.mean(), scale=stats.sem(values))
    half, found = (high - low) / 2, {"x": moments(values)}
    assert StopRule.parse(f"ci_halfwidth(x) < {half * 1.001}").met(found)
    assert not StopRule.parse(f"ci_halfwidth(x) < {half * 0.999}").met(found)


@pytest.mark.parametrize("values", [[1e308, -1e308], [1e16, 1e16 + 2], [1e16, 1e16 + 2, 1e16]])
def test_a_histogram_without_room(values: list[float]) -> None:
    """Values that are too close together or too far apart for so many edges are counted in one bin."""
    assert histogram(np.array(values)) == {"counts": [len(values)], "edges": [min(values), max(values)]}
