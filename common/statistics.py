"""Moments of a sample, and how two of them become one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Moments(NamedTuple):
    """Count, mean, sum of squared deviations from the mean, minimum, maximum."""

    n: int
    mean: float
    m2: float
    min: float
    max: float

    @property
    def variance(self) -> float:
        """The sample variance, with n - 1; NaN for fewer than two values."""
        return self.m2 / (self.n - 1) if self.n > 1 else float("nan")

    @property
    def standard_deviation(self) -> float:
        """The square root of :attr:`variance`."""
        return float(np.sqrt(self.variance))


def moments(values: npt.NDArray[np.float64]) -> Moments:
    """The moments of at least one value, in two passes; of huge ones mean and m2 may be infinite or NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
        deviation = values - mean
        m2 = float(deviation @ deviation)
    return Moments(len(values), mean, m2, float(values.min()), float(values.max()))


def merge(a: Moments | None, b: Moments) -> Moments:
    """The moments of both samples together.

    Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances" (1979). The last
    digits depend on the order of merging, so what must be the same every time is merged in the order of the jobs.
    """
    if a is None:
        return b
    n, delta = a.n + b.n, b.mean - a.mean
    return Moments(
        n,
        a.mean + delta * b.n / n,
        a.m2 + b.m2 + delta * delta * a.n * b.n / n,
        min(a.min, b.min),
        max(a.max, b.max),
    )


def collect(found: dict[str, Moments], records: np.ndarray, outputs: Sequence[str]) -> None:
    """Add the outputs of these job records to what was found; NaN and infinity are left out of every average."""
    for name in outputs:
        values = records[f"out:{name}"]
        finite = values[np.isfinite(values)]
        if len(finite):
            found[name] = merge(found.get(name), moments(finite))
