"""What makes a batch's results suspicious: jobs that return what others return, or something else when they run again.

The usual mistake is a simulation that does not draw from the generator it is given, or seeds one of its own from the
clock. While a batch runs, its first jobs are looked at; once it has ended, all of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from common import samples
from common.batch import BatchSpec, JobState
from common.ledger import Connection, batches, table
from common.ledger.batches import BatchView
from common.ledger.table import record_dtype
from common.samples import Samples
from common.statistics import Moments
from common.sweep import Sweep

# So many equal results are no chance any more.
LEAST_JOBS = 10
# Jobs that are looked at while the batch runs: each look must be cheap.
FIRST_JOBS = 2**14
# Distinct rows that are kept.
MOST_ROWS = 2**16
# Values on a grid of fewer steps than this, such as counts or their means, are equal by chance.
MOST_STEPS = 1e5
# Fewer different results than this may be those of a coin or of dice, whatever is calculated from them.
LEAST_ROWS = 16
# So many standard deviations from what chance makes of neighbours are no chance any more.
STRONG = 5.0
# What a remainder of two doubles may be off by, beside the largest value.
ROUNDING = 1e-8


class Rows:
    """How many jobs share their results with others: a sample by value, so that equal rows stay together.

    Rows are kept whose hash ends in zero bits, more of them as rows become many (Gibbons, "Distinct sampling for
    highly-accurate answers to distinct values queries", 2001); exact up to ``MOST_ROWS`` distinct rows.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self._outputs = outputs
        self._mask = np.uint64(0)
        self._hashes = np.array([], dtype=np.uint64)
        self._counts = np.array([], dtype=np.int64)
        self._rows = np.empty((0, len(outputs)))
        # Of pairs of neighbours, how many there were, and how many were equal.
        self._pairs = self._equal_pairs = 0

    def add(self, records: np.ndarray) -> None:
        """Take the completed ones of these job records in."""
        good = records[records["state"] == JobState.COMPLETED]
        rows = np.column_stack([good[f"out:{name}"] for name in self._outputs]) if len(self._outputs) else good[:0]
        if not len(rows):
            return
        hashes = _hashes(rows)
        self._pairs += len(hashes) - 1
        self._equal_pairs += int((hashes[1:] == hashes[:-1]).sum())
        chosen = (hashes & self._mask) == 0
        everything = np.concatenate((self._hashes, hashes[chosen]))
        weights = np.concatenate((self._counts, np.ones(int(chosen.sum()), dtype=np.int64)))
        self._hashes, where, owners = np.unique(everything, return_index=True, return_inverse=True)
        self._counts = np.bincount(owners, weights=weights).astype(np.int64)
        self._rows = np.concatenate((self._rows, rows[chosen]))[where]
        while len(self._hashes) > MOST_ROWS:
            self._mask = self._mask * np.uint64(2) + np.uint64(1)
            kept = (self._hashes & self._mask) == 0
            self._hashes, self._counts, self._rows = self._hashes[kept], self._counts[kept], self._rows[kept]

    def shared(self, *, neighbours: bool = True) -> float:
        """The part of the jobs that share their results with another job; 0 when that may well be chance.

        Discrete results are shared by chance. They are known by their values, which are counts or are calculated from
        such in a usual way; else by how often each is there. Seeds are about equally frequent, and results seldom are,
        save of a few outcomes as of a die. Of few outcomes, jobs are suspected only when neighbours are equal more or
        less often than chance has it: those of one second have one seed from the clock, and ``index % 8`` never
        repeats. ``neighbours`` says that this can be judged: the jobs came in order, and all with the same parameters.
        """
        several = self._counts > 1
        counts = self._counts[several]
        jobs = int(counts.sum())
        # A single row may be a common outcome, such as a payoff of nothing.
        if len(counts) < 2 or jobs < LEAST_JOBS or all(_discrete(values) for values in self._rows[several].T):
            return 0.0
        even = len(counts) >= LEAST_ROWS and _even(counts)
        if not even and not (neighbours and self._ordered()):
            return 0.0
        return jobs / int(self._counts.sum())

    def _ordered(self) -> bool:
        """Whether the jobs' order shows in which of them are equal."""
        if self._mask:
            return False
        parts = self._counts / self._counts.sum()
        equal, threes = float((parts**2).sum()), float((parts**3).sum())
        # Of independent jobs; neighbouring pairs have a job in common.
        variance = self._pairs * (equal * (1 - equal) + 2 * (threes - equal**2))
        return abs(self._equal_pairs - self._pairs * equal) > STRONG * math.sqrt(max(variance, 1.0))


def _hashes(rows: np.ndarray) -> np.ndarray:
    found = np.zeros(len(rows), dtype=np.uint64)
    # One bit pattern for 0.0 and -0.0.
    for column in (rows + 0.0).T:
        found = (found ^ np.ascontiguousarray(column).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(32)
    return found


def _even(counts: np.ndarray) -> bool:
    """Whether results are about as frequent as one another: none much more than the mean, beside Poisson's scatter."""
    mean = float(counts.mean())
    return bool(counts.max() <= 2 * mean + 4 * math.sqrt(mean))


def _discrete(values: np.ndarray) -> bool:
    """Whether the values are counts, or roots, logarithms or reciprocals of counts."""
    if on_grid(values):
        return True
    sizes = np.unique(np.abs(values[np.isfinite(values) & (values != 0)]))
    logarithms = np.unique(values[np.isfinite(values)])
    up, down = (
        np.exp(np.maximum(logarithms - logarithms[-1], -700)),
        np.exp(np.maximum(logarithms[0] - logarithms, -700)),
    )
    return any(
        # A value that is small beside the largest would count as rounding.
        float(counts.min()) * MOST_STEPS > float(counts.max()) and on_grid(counts)
        for counts in (np.square(sizes / sizes[-1]), sizes[0] / sizes, up, down)
    )


def on_grid(values: np.ndarray) -> bool:
    """Whether all finite values are multiples of one step, as counts and their means are: Euclid's algorithm."""
    sizes = np.unique(np.abs(values[np.isfinite(values) & (values != 0)]))
    if not len(sizes):
        return True
    most, step = float(sizes[-1]), 0.0
    for value in sizes.tolist():
        rest = value
        while rest > most * ROUNDING:
            step, rest = rest, abs(math.remainder(step, rest))
        # As exact as the largest value is: else the next remainders have this one's error many times over.
        step = value / max(1, round(value / step))
        if step < most / MOST_STEPS:
            return False
    return True


def identical(found: Samples) -> np.ndarray:
    """For each point whether at least ten jobs of it completed and all gave the same, in every output."""
    same = found.completed >= LEAST_JOBS
    known = np.zeros(len(same), dtype=bool)
    for name in found.columns:
        values, counts = found.finite(name)
        starts = np.cumsum(counts) - counts
        some = counts > 0
        if some.any():
            least = np.minimum.reduceat(values, starts[some])
            same[some] &= (least == np.maximum.reduceat(values, starts[some])) & (counts[some] == found.completed[some])
        known |= some
    return same & known


class Inspection:
    """Gathers what is suspicious about a batch while somebody goes over its jobs."""

    def __init__(self, view: BatchView) -> None:
        self._spec = view.spec
        self._view = view
        self._sweep = Sweep.from_dict(view.spec.sweep) if view.spec.sweep else None
        self._rows = Rows(view.spec.outputs)
        self._same: list[int] = []
        self._points = 0

    def add_records(self, records: np.ndarray) -> None:
        """Look at job records, in any order."""
        # The same random numbers at another point may well give the same.
        if self._sweep is None or not self._sweep.common_random_numbers:
            self._rows.add(records)

    def add_points(self, found: Samples) -> None:
        """Look at the next points of a sweep."""
        self._same += (np.flatnonzero(identical(found)) + self._points).tolist()
        self._points += len(found.completed)

    def add_moments(self, seen: Mapping[str, Moments], completed: int) -> None:
        """Look at a batch that is no sweep: that all its jobs gave the same shows in the smallest and largest value."""
        constant = all(values.min == values.max and values.n == completed for values in seen.values())
        if seen and constant and completed >= LEAST_JOBS:
            self._same.append(0)

    def texts(self) -> list[str]:
        """A sentence on each suspicion."""
        return [*self._of_points(), *self._of_rows(), *_of_attempts(self._spec, self._view.differed)]

    def _of_points(self) -> Iterator[str]:
        if not self._same:
            return
        question = "does the simulation use its random generator?"
        if self._sweep is None:
            yield f"All jobs returned the same {_listed(self._spec)}: {question}"
            return
        first = ", ".join(f"{name}={value}" for name, value in self._sweep.parameters(self._same[0]).items())
        where = f"At {len(self._same):,} of {self._points:,} points, the first being {first or 'the only one'},"
        yield f"{where} all jobs returned the same {_listed(self._spec)}: {question}"

    def _of_rows(self) -> Iterator[str]:
        # The jobs of a point are neighbours, and have its outcomes.
        shared = self._rows.shared(neighbours=self._sweep is None)
        if shared > 0.5:
            yield (
                f"{shared:.0%} of the jobs returned exactly what another one did: unless the results are discrete, "
                "does the simulation seed a random generator of its own, from few seeds or from the clock?"
            )


def _of_attempts(spec: BatchSpec, differed: tuple[int, int] | None) -> Iterator[str]:
    if differed:
        job, attempt = differed
        yield (
            f"Job {spec.id}_{job} gave other bytes at attempt {attempt}: it depends on something beside its seed and "
            "parameters."
        )


def _listed(spec: BatchSpec) -> str:
    return " and ".join(spec.outputs) if len(spec.outputs) < 4 else "results"


def warnings(connection: Connection, view: BatchView) -> list[str]:
    """What is suspicious about a batch: of its first jobs while it runs, of all once its results files are written."""
    if view.warnings is not None:
        return list(view.warnings)
    spec, found = view.spec, Inspection(view)
    if not spec.outputs:
        return found.texts()
    count = min(spec.jobs, FIRST_JOBS)
    found.add_records(table.read(connection, spec.id, 1, count, record_dtype(spec.outputs)))
    if not spec.sweep:
        seen = batches.statistics(connection, spec.id, spec.outputs)
        found.add_moments(seen, view.counters[JobState.COMPLETED])
    elif (replications := int(spec.sweep["replications"])) <= FIRST_JOBS:
        found.add_points(samples.read(connection, spec, 1, count // replications, replications))
    return found.texts()
