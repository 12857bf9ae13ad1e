"""Stop rules: ``ci_halfwidth(price) < 0.01`` ends a batch by itself once its estimate is good enough.

Looking at the data until they please costs coverage: an interval that was waited for is a little too narrow, the more
so the fewer jobs it took. A minimum count keeps that small (Chow and Robbins, "On the asymptotic theory of fixed-width
sequential confidence intervals for the mean", 1965: the coverage tends to the nominal one as the width goes to 0).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from common.errors import InvalidInput
from common.estimates import t_quantiles
from common.statistics import Moments

LEAST_COUNT = 100
_RULE = re.compile(
    r"\s*(?P<what>ci_halfwidth|standard_error|count)\s*\(\s*(?P<output>\w+)\s*\)\s*"
    r"(?P<sign><|>=)\s*(?P<limit>[0-9.eE+-]+)\s*(?P<percent>%?)\s*"
    r"(?:and\s+n\s*>=\s*(?P<least>[0-9]+)\s*)?"
)


@dataclass(frozen=True)
class StopRule:
    """``what(output) < limit``, absolute or as a part of the mean's size, from ``least`` values on."""

    what: str
    output: str
    limit: float
    relative: bool
    least: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rule such as ``ci_halfwidth(price) < 0.5 % and n >= 1000``. Raises :class:`InvalidInput`."""
        match = _RULE.fullmatch(text)
        wanted = (
            "until: write ci_halfwidth(OUTPUT) < 0.01, or < 1 %, or standard_error(OUTPUT) < 0.01, and n >= 1000; "
            "or count(OUTPUT) >= 1000"
        )
        counts = match is not None and match["what"] == "count"
        if not match or counts != (match["sign"] == ">=") or (counts and match["percent"]):
            raise InvalidInput(f"{wanted}; {text!r} is not that", field="until")
        try:
            limit = float(match["limit"])
        except ValueError:
            raise InvalidInput(f"{wanted}; {match['limit']!r} is no number", field="until") from None
        if not 0 < limit < math.inf:
            raise InvalidInput(f"until: the limit is {limit:g}; it must be finite and above 0", field="until")
        # Of one value there is no spread; to be counted it is enough.
        fewest, usual = (0, 0) if counts else (2, LEAST_COUNT)
        least = max(fewest, int(match["least"]) if match["least"] else usual)
        relative = match["percent"] == "%"
        return cls(match["what"], match["output"], limit / 100 if relative else limit, relative, least)

    def met(self, found: Mapping[str, Moments], confidence: float = 0.95) -> bool:
        """Whether the statistics of the completed jobs fulfil it."""
        values = found.get(self.output)
        if values is None:
            return False
        n, mean = np.array(values.n), np.array(values.mean)
        return bool(self.reached(n, mean, np.array(values.standard_deviation), confidence))

    def reached(self, n: np.ndarray, mean: np.ndarray, deviation: np.ndarray, confidence: float = 0.95) -> np.ndarray:
        """The same of many samples at once: of each its count, mean and standard deviation."""
        if self.what == "count":
            return np.asarray((n >= self.limit) & (n >= self.least))
        width = deviation / np.sqrt(n)
        if self.what == "ci_halfwidth":
            width = width * t_quantiles(confidence, n - 1)
        return np.asarray((n >= self.least) & (width < self.limit * (np.abs(mean) if self.relative else 1.0)))
