"""The outputs of the completed jobs, read from the job table as columns; what estimates are made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.batch import BatchSpec, JobState
from common.ledger import Connection, table
from common.ledger.table import SEGMENT_JOBS, record_dtype
from common.sweep import Sweep

# Jobs whose points are looked at together.
BLOCK_JOBS = 2**18


@dataclass(frozen=True)
class Samples:
    """Of neighbouring points: how many jobs of each completed, and what they gave, point after point."""

    completed: np.ndarray
    columns: dict[str, np.ndarray]

    def finite(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Of an output: its finite values, and how many of them each point has."""
        values = self.columns[name]
        good = np.isfinite(values)
        if good.all():
            return values, self.completed
        owners = np.repeat(np.arange(len(self.completed)), self.completed)
        return values[good], np.bincount(owners[good], minlength=len(self.completed))


def read(
    connection: Connection,
    spec: BatchSpec,
    first: int = 1,
    points: int = 1,
    replications: int = 0,
    *,
    names: Sequence[str] | None = None,
) -> Samples:
    """The samples of ``points`` times ``replications`` jobs from job ``first`` on; without numbers, of the whole batch.

    Of all outputs, or those in ``names``. Takes 8 bytes a job and output, and a segment's records at a time.
    """
    end = first + points * (replications or spec.jobs)
    dtype = record_dtype(spec.outputs)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (spec.outputs if names is None else names)}
    masks, position = [], first
    while position < end:
        # Up to the segment's border, so that the records stay the one piece that Redis sent.
        take = min(SEGMENT_JOBS - (position - 1) % SEGMENT_JOBS, end - position)
        records = table.read(connection, spec.id, position, take, dtype)
        masks.append(records["state"] == JobState.COMPLETED)
        for name, values in parts.items():
            values.append(records[f"out:{name}"][masks[-1]])
        position += take
    completed = np.concatenate(masks).reshape(points, -1).sum(axis=1)
    return Samples(completed, {name: np.concatenate(values) for name, values in parts.items()})


def by_points(
    connection: Connection, spec: BatchSpec, sweep: Sweep, offset: int, limit: int
) -> Iterator[tuple[int, Samples]]:
    """The samples of at most ``limit`` points from ``offset`` on, some at a time: (the first of them, samples)."""
    end, step = min(sweep.size, offset + limit), max(1, BLOCK_JOBS // sweep.replications)
    for point in range(offset, end, step):
        count = min(step, end - point)
        yield point, read(connection, spec, point * sweep.replications + 1, count, sweep.replications)
