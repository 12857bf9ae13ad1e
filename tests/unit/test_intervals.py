"""An estimate with its uncertainty as text."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.intervals import DIGITS, half_width, plus_minus

NAN = math.nan


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (10.45063, 0.1234, "10.451 ± 0.123"),
        (507.8, 161.2, "508 ± 161"),
        (-0.00012346, 0.0000456, "-0.0001235 ± 0.0000456"),
        (2.0, 0.0, "2 ± 0"),
        (1e-12, 3e-14, "1e-12 ± 3e-14"),
        (123456.7, 1234.5, "123457 ± 1.23e+03"),
        (1.5, math.inf, "1.5 ± inf"),
        (1.5, None, "1.5"),
        (1.5, NAN, "1.5"),
        (None, None, "unknown"),
        (NAN, 1.0, "unknown"),
    ],
)
def test_text(mean: float | None, half: float | None, text: str) -> None:
    """As many digits as mean something."""
    assert plus_minus(mean, half) == text
    if half is not None and not math.isnan(half) and text != "unknown":
        assert plus_minus(mean, half, 0.95) == f"{text} (95 %)"
        assert plus_minus(mean, half, 0.999) == f"{text} (99.9 %)"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e5))
def test_the_text_says_the_interval(mean: float, half: float) -> None:
    """To a digit that does not matter beside its width."""
    assume(abs(mean) < 1e5 * half)
    said_mean, said_half = (float(part) for part in plus_minus(mean, half).split(" ± "))
    assert said_half == pytest.approx(half, rel=10.0 ** (1 - DIGITS))
    assert abs(said_mean - mean) <= 0.05 * half + 1e-9


def test_half_width() -> None:
    """Half of what lies between the ends, when both are known."""
    assert half_width(1.0, 4.0) == 1.5
    assert half_width(None, 4.0) is None
    assert half_width(1.0, None) is None
