"""An estimate with its uncertainty, as people read it; of no library, so that the command line starts fast."""

import math

#: Of the intervals that are shown when nobody asks for another.
CONFIDENCE = 0.95
#: Of a sweep so many are shown at once.
MOST_POINTS_SHOWN = 20
DIGITS = 3
MOST_DECIMALS = 9


def plus_minus(mean: float | None, half_width: float | None, confidence: float | None = None) -> str:
    """``10.451 ± 0.123``, with ``(95 %)`` behind it; what is None or NaN is not known, and a half is left out then.

    The half has three digits, and the mean as many decimals, where that can be read.
    """
    if mean is None or math.isnan(mean):
        return "unknown"
    if half_width is None or math.isnan(half_width):
        return f"{mean:.6g}"
    decimals = DIGITS - 1 - math.floor(math.log10(half_width)) if half_width > 0 and math.isfinite(half_width) else -1
    plain = 0 <= decimals <= MOST_DECIMALS
    both = f"{mean:.{decimals}f} ± {half_width:.{decimals}f}" if plain else f"{mean:.6g} ± {half_width:.{DIGITS}g}"
    return both + (f" ({100 * confidence:.6g} %)" if confidence else "")


def half_width(low: float | None, high: float | None) -> float | None:
    """Half of an interval; None when an end of it is not known."""
    return None if low is None or high is None else (high - low) / 2
