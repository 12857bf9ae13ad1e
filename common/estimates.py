"""Estimates while a batch runs: each output's mean, its uncertainty, quantiles, histogram; exact, from the job table.

All are of the completed jobs with a finite value. NumPy and SciPy give the same of ``results.csv``'s columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.batch import BatchSpec, JobState
from common.errors import InvalidInput
from common.ledger import Connection, table
from common.ledger.table import record_dtype
from common.sweep import Sweep

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DEFAULT_CONFIDENCE = 0.95
HISTOGRAM_BINS = 20
CHUNK_JOBS = 2**18
MOST_POINTS = 1000


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
        return {name: _plain(value) for name, value in vars(self).items()}


def estimate(values: np.ndarray, *, confidence: float = DEFAULT_CONFIDENCE, bins: int = HISTOGRAM_BINS) -> Estimate:
    """The estimate of the mean of a sample, with Student's t interval (Student, "The probable error of a mean", 1908).

    The standard deviation has n - 1; quantiles are NumPy's default (linear).
    """
    finite = values[np.isfinite(values)]
    n = len(finite)
    mean = float(finite.mean()) if n else np.nan
    deviation = float(finite.std(ddof=1)) if n > 1 else np.nan
    error = deviation / np.sqrt(n) if n > 1 else np.nan
    half = error * t_quantile(confidence, n - 1) if n > 1 else np.nan
    counts, edges = np.histogram(finite, bins=bins) if n and bins else (np.array([]), np.array([]))
    return Estimate(
        count=n,
        non_finite=len(values) - n,
        mean=mean,
        standard_deviation=deviation,
        standard_error=float(error),
        ci_low=mean - float(half),
        ci_high=mean + float(half),
        min=float(finite.min()) if n else np.nan,
        max=float(finite.max()) if n else np.nan,
        quantiles=_quantiles(finite) if n else {},
        histogram={"counts": counts.tolist(), "edges": edges.tolist()},
    )


def _quantiles(values: np.ndarray) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    return {f"{which:g}": float(value) for which, value in zip(QUANTILES, found, strict=True)}


def t_quantile(confidence: float, degrees: int) -> float:
    """How many standard errors the two-sided interval reaches to each side."""
    # Not at the top: SciPy's import takes longer than most requests.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def overall(
    connection: Connection, spec: BatchSpec, *, confidence: float = DEFAULT_CONFIDENCE
) -> dict[str, dict[str, Any]]:
    """Each output's estimate over all completed jobs. Raises :class:`InvalidInput` for a confidence out of range."""
    _check(confidence)
    columns = _columns(connection, spec, 1, spec.jobs)
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
    for point in range(offset, min(sweep.size, offset + min(limit, MOST_POINTS))):
        columns = _columns(connection, spec, point * sweep.replications + 1, sweep.replications)
        found = {name: estimate(values, confidence=confidence, bins=0).to_dict() for name, values in columns.items()}
        for each in found.values():
            del each["histogram"]
        yield {"point": point, "parameters": sweep.parameters(point), "outputs": found}


def _columns(connection: Connection, spec: BatchSpec, first: int, count: int) -> dict[str, np.ndarray]:
    """The outputs of the completed jobs among ``count`` from ``first`` on; 8 bytes a job and output."""
    dtype = record_dtype(spec.outputs)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in spec.outputs}
    for start in range(first, first + count, CHUNK_JOBS):
        records = table.read(connection, spec.id, start, min(CHUNK_JOBS, first + count - start), dtype)
        good = records[records["state"] == JobState.COMPLETED]
        for name in spec.outputs:
            parts[name].append(good[f"out:{name}"])
    return {name: np.concatenate(values) if values else np.array([]) for name, values in parts.items()}


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InvalidInput(
            f"confidence is {confidence:g}; it must be between 0 and 1, such as 0.95", field="confidence"
        )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
