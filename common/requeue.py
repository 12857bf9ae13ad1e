"""Which jobs of a batch run again: runs of neighbours in one state, from the job table and, if asked, the results."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from common import results
from common.batch import JobState
from common.errors import InvalidInput
from common.ledger import Connection, table
from common.ledger.batches import BatchView
from common.ledger.control import Run
from common.ledger.table import SEGMENT_JOBS, record_dtype
from common.statistics import Moments, collect

CHUNK_JOBS = 2**16
# What one step of a requeue moves; the ledger does nothing else meanwhile.
MOST_RUNS = 2000
MOST_JOBS = 250_000


class Plan:
    """Which jobs of a batch a requeue runs again, as runs of equal state within a table segment."""

    def __init__(
        self, connection: Connection, view: BatchView, place: Path, states: Sequence[JobState], *, missing: bool
    ) -> None:
        unfit = [state.name for state in states if not state.terminal or state is JobState.COMPLETED]
        if unfit:
            raise InvalidInput(f"jobs that are {unfit[0]} are not run again", field="states")
        self._connection = connection
        self._spec = view.spec
        self._states = states
        self._store = results.open_store(place, view.spec, checked=True) if missing else None
        #: Statistics of the completed jobs that stay; complete once all runs were taken.
        self.kept: dict[str, Moments] = {}

    def runs(self) -> Iterator[Run]:
        """The runs, in the order of the jobs."""
        dtype = record_dtype(self._spec.outputs)
        for first in range(1, self._spec.jobs + 1, CHUNK_JOBS):
            count = min(CHUNK_JOBS, self._spec.jobs - first + 1)
            records = table.page(self._connection, self._spec.id, first, count, dtype)
            chosen = np.isin(records["state"], [int(state) for state in self._states])
            completed = records["state"] == JobState.COMPLETED
            if self._store is not None:
                lost = np.zeros(count, dtype=bool)
                for position in np.flatnonzero(completed):
                    lost[position] = results.parse(self._store.read(first + int(position)) or b"") is None
                chosen |= lost
            stay = completed & ~chosen
            collect(self.kept, records[stay], self._spec.outputs)
            yield from _equal_runs(first, records, chosen)


def steps(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs in groups, each small enough for one step of the ledger."""
    step: list[Run] = []
    jobs = 0
    for run in runs:
        if step and (len(step) == MOST_RUNS or jobs + run[1] > MOST_JOBS):
            yield step
            step, jobs = [], 0
        step.append(run)
        jobs += run[1]
    if step:
        yield step


def _equal_runs(first: int, records: np.ndarray, chosen: np.ndarray) -> Iterator[Run]:
    """Runs of chosen jobs of one state and reason, begun or not; the attempts are the most of any of them."""
    key = (records["state"].astype(np.int32) * 256 + records["reason"]) * 2 + (records["attempt"] > 0)
    key[~chosen] = -1
    edges = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1], [True])))
    for low, high in pairwise(edges):
        if key[low] >= 0:
            attempts = int(records["attempt"][low:high].max())
            yield first + int(low), int(high - low), JobState(int(records["state"][low])), attempts


assert SEGMENT_JOBS % CHUNK_JOBS == 0, "a run must lie within one segment"
assert CHUNK_JOBS <= MOST_JOBS, "a run must fit into one step"
