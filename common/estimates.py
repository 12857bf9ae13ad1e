"""Estimates while a batch runs: each output's mean, its uncertainty, quantiles, histogram; exact, from the job table.

All are of the completed jobs with a finite value. NumPy and SciPy give the same of ``results.csv``'s columns.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import samples
from common.batch import BatchSpec
from common.errors import InvalidInput
from common.intervals import CONFIDENCE
from common.ledger import Connection
from common.samples import Samples
from common.statistics import Moments
from common.sweep import Sweep

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DEFAULT_CONFIDENCE = CONFIDENCE
HISTOGRAM_BINS = 20
MOST_POINTS = 1000
SCALARS = ("mean", "standard_deviation", "standard_error", "ci_low", "ci_high", "min", "max")


@dataclass(frozen=True)
class Estimate:
    """Of one output: ``count`` finite values, ``non_finite`` others; NaN where too few say nothing."""

    count: int
    non_finite: int
    mean: float
    standard_deviation: float
    standard_error: float
    ci_low: float
    ci_high: float
    min: float
    max: float
    quantiles: dict[str, float]
    histogram: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object; what is not known is null."""
        return {name: plain(value) for name, value in vars(self).items()}


def estimate(values: np.ndarray, *, confidence: float = DEFAULT_CONFIDENCE) -> Estimate:
    """The estimate of the mean of a sample; see :func:`describe` and :func:`histogram`."""
    good = np.isfinite(values)
    finite = values if good.all() else values[good]
    n = len(finite)
    found = describe(finite.reshape(1, n), confidence) if n else _unknown(1)
    return Estimate(
        count=n,
        non_finite=len(values) - n,
        **{name: float(found[name][0]) for name in SCALARS},
        quantiles=_named(found["quantiles"][:, 0].tolist()) if n else {},
        histogram=histogram(finite),
    )


def histogram(finite: np.ndarray, bins: int = HISTOGRAM_BINS) -> dict[str, list[float]]:
    """``counts`` of finite values in ``bins`` bins of equal width, and their ``edges``, as NumPy has it.

    Empty of none; a single bin where the values leave no room for more.
    """
    if not len(finite):
        return {"counts": [], "edges": []}
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            counts, edges = np.histogram(finite, bins=bins)
    except ValueError:
        # Too close together, or too far apart, for doubles to hold so many edges between them.
        counts, edges = np.array([len(finite)]), np.array([finite.min(), finite.max()])
    return {"counts": counts.tolist(), "edges": edges.tolist()}


def describe(rows: np.ndarray, confidence: float) -> dict[str, np.ndarray]:
    """Of each row, a sample of finite values: ``SCALARS`` and, a row for each of ``QUANTILES``, ``quantiles``.

    The interval is Student's ("The probable error of a mean", 1908), the standard deviation has n - 1, quantiles are
    NumPy's default (linear). The same to the last digit as of each row alone; NaN where one value says nothing.
    """
    found, n = _unknown(len(rows)), rows.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        found["mean"], found["min"], found["max"] = rows.mean(axis=1), rows.min(axis=1), rows.max(axis=1)
        if n > 1:
            found["standard_deviation"] = rows.std(axis=1, ddof=1)
            found["standard_error"] = found["standard_deviation"] / np.sqrt(n)
            half = found["standard_error"] * t_quantile(confidence, n - 1)
            found["ci_low"], found["ci_high"] = found["mean"] - half, found["mean"] + half
        found["quantiles"] = np.quantile(rows, QUANTILES, axis=1)
    return found


def describe_points(found: Samples, name: str, confidence: float) -> dict[str, np.ndarray]:
    """Of each point, as :func:`describe`, with ``count`` and ``non_finite``; points with as many values go together."""
    values, counts = found.finite(name)
    starts, result = np.cumsum(counts) - counts, _unknown(len(counts))
    for n in np.unique(counts[counts > 0]).tolist():
        which = np.flatnonzero(counts == n)
        rows = values.reshape(-1, n) if len(which) == len(counts) else values[starts[which][:, None] + np.arange(n)]
        for field, numbers in describe(rows, confidence).items():
            result[field][..., which] = numbers
    return {"count": counts, "non_finite": found.completed - counts, **result}


def _unknown(points: int) -> dict[str, np.ndarray]:
    nothing = {name: np.full(points, np.nan) for name in SCALARS}
    return {**nothing, "quantiles": np.full((len(QUANTILES), points), np.nan)}


def _named(quantiles: list[float]) -> dict[str, float]:
    return {f"{which:g}": plain(value) for which, value in zip(QUANTILES, quantiles, strict=True)}


def t_quantile(confidence: float, degrees: int) -> float:
    """How many standard errors the two-sided interval reaches to each side."""
    return float(t_quantiles(confidence, np.array(degrees)))


def t_quantiles(confidence: float, degrees: np.ndarray) -> np.ndarray:
    """As :func:`t_quantile`, for many."""
    # Not at the top: SciPy's import takes longer than most requests.
    from scipy.special import stdtrit

    found: np.ndarray = np.asarray(stdtrit(degrees, (1 + confidence) / 2))
    return found


def overall(
    connection: Connection, spec: BatchSpec, *, confidence: float = DEFAULT_CONFIDENCE
) -> dict[str, dict[str, Any]]:
    """Each output's estimate over all completed jobs. Raises :class:`InvalidInput` for a confidence out of range."""
    _check(confidence)
    columns = samples.read(connection, spec).columns
    return {name: estimate(values, confidence=confidence).to_dict() for name, values in columns.items()}


def by_point(
    connection: Connection,
    spec: BatchSpec,
    *,
    offset: int = 0,
    limit: int = 100,
    confidence: float = DEFAULT_CONFIDENCE,
) -> Iterator[dict[str, Any]]:
    """Each point's parameters and estimates: ``{"point", "parameters", "outputs"}``, at most ``limit`` from ``offset``.

    Raises :class:`InvalidInput` when the batch is no sweep.
    """
    _check(confidence)
    if not spec.sweep:
        raise InvalidInput(f"Batch {spec.id} is no sweep: all its jobs have the same parameters.", field="batch")
    sweep = Sweep.from_dict(spec.sweep)
    for first, found in samples.by_points(connection, spec, sweep, offset, min(limit, MOST_POINTS)):
        each = {name: _points_json(found, name, confidence) for name in spec.outputs}
        for number in range(len(found.completed)):
            said = {name: rows[number] for name, rows in each.items()}
            yield {"point": first + number, "parameters": sweep.parameters(first + number), "outputs": said}


def half_width(found: Moments, confidence: float = DEFAULT_CONFIDENCE) -> float | None:
    """How far the interval of :func:`describe` reaches to each side of the mean; None when one value says nothing."""
    if found.n < 2:
        return None
    return t_quantile(confidence, found.n - 1) * found.standard_deviation / math.sqrt(found.n)


def _points_json(samples: Samples, output: str, confidence: float) -> list[dict[str, Any]]:
    """Of an output, a JSON object for each point."""
    found = describe_points(samples, output, confidence)
    fields = [(name, values.tolist()) for name, values in found.items() if name != "quantiles"]
    quantiles = found["quantiles"].T.tolist()
    values, counts = samples.finite(output)
    pieces = np.split(values, np.cumsum(counts)[:-1])
    return [
        {name: plain(numbers[at]) for name, numbers in fields}
        | {"quantiles": _named(quantiles[at]) if len(piece) else {}, "histogram": histogram(piece)}
        for at, piece in enumerate(pieces)
    ]


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InvalidInput(
            f"confidence is {confidence:g}; it must be between 0 and 1, such as 0.95", field="confidence"
        )


def plain(value: Any) -> Any:
    """The value as JSON has it: null for NaN and infinity, which a mean or a variance of huge values can be."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
