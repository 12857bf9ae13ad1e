"""Hold stop rules against what has completed, and end what is good enough: a batch, or a point of a sweep."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import structlog
from celery import Celery

from common import queue
from common.batch import BatchSpec, JobState, Reason
from common.errors import InvalidInput
from common.ledger import Connection, batches, control, ranges, table
from common.ledger.table import record_dtype
from common.statistics import Moments, collect
from common.stopping import StopRule

log = structlog.get_logger()

# Records of a sweep that are looked at in one round; the other points' turn comes in the next ones.
MOST_JOBS_LOOKED_AT = 2**19
# Of a point with more replications the rule is held against the first so many.
MOST_JOBS_OF_A_POINT = 2**23
CHUNK_JOBS = 2**18
# After the looks at all sweeps this many times their length is left to the keeper's other steps.
REST = 20.0
# In one round no look begins after this time, for the leases are renewed between two rounds.
ROUND_SECONDS = 0.1


class StopRules:
    """Looks at the batches that have a rule, whenever it is asked to.

    A point that needs less than ``slice_seconds`` to its end is left to end: to stop a slot costs what it has not
    committed yet.
    """

    def __init__(
        self, connection: Connection, app: Celery, *, slice_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._app = app
        self._slice_seconds = slice_seconds
        # Of each sweep the point that was looked at last.
        self._last: dict[int, int] = {}
        self._clock = clock
        # Of each sweep when it may be looked at again.
        self._rest_until: dict[int, float] = {}

    def apply(self) -> None:
        """One look. Raises :class:`common.errors.BrokerUnavailable` or kombu's OperationalError."""
        found = batches.rules(self._connection)
        self._last = {batch: point for batch, point in self._last.items() if batch in found}
        self._rest_until = {batch: until for batch, until in self._rest_until.items() if batch in found}
        sweeps: list[tuple[BatchSpec, StopRule]] = []
        for batch, text in found.items():
            try:
                rule = StopRule.parse(text)
            except InvalidInput:
                # As a batch may have that an older version accepted: it runs to its end.
                continue
            spec = batches.view(self._connection, batch).spec
            if spec.sweep and spec.jobs > spec.sweep["replications"]:
                sweeps.append((spec, rule))
            elif rule.met(batches.statistics(self._connection, batch, spec.outputs)):
                self._stop(spec, 1, spec.jobs)
        self._look_in_turn(sweeps)

    def _look_in_turn(self, sweeps: Sequence[tuple[BatchSpec, StopRule]]) -> None:
        """Look at those that have rested, the one first that has waited for longest. A large one rests for longer."""
        round_began = self._clock()
        for spec, rule in sorted(sweeps, key=lambda sweep: self._rest_until.get(sweep[0].id, -math.inf)):
            began = self._clock()
            if began < self._rest_until.get(spec.id, -math.inf) or began - round_began > ROUND_SECONDS:
                return
            self._look_at_points(spec, rule)
            now = self._clock()
            self._rest_until[spec.id] = now + REST * len(sweeps) * (now - began)

    def _look_at_points(self, spec: BatchSpec, rule: StopRule) -> None:
        replications = int(spec.sweep["replications"])
        # Points run in turn, so of most of them either nothing is done or nothing is left: those that are under way are
        # where ranges stand. A range at a point's first job seldom has anything done behind it: after a requeue.
        heads = {ticket.first - 1 for ticket in ranges.open_ranges(self._connection, spec.id)}
        under_way = {head // replications for head in heads if head % replications}
        others = {head // replications for head in heads} - under_way
        last = self._last.get(spec.id, -1)
        in_turn = [
            point
            for points in (sorted(under_way), sorted(others))
            for point in (*(each for each in points if each > last), *(each for each in points if each <= last))
        ]
        for point in in_turn[: max(1, MOST_JOBS_LOOKED_AT // replications)]:
            self._last[spec.id] = point
            first = point * replications + 1
            if self._good_enough(spec, rule, first, replications):
                self._stop(spec, first, replications)

    def _good_enough(self, spec: BatchSpec, rule: StopRule, first: int, count: int) -> bool:
        found: dict[str, Moments] = {}
        left, timed, seconds = 0, 0, 0.0
        for start in range(first, first + min(count, MOST_JOBS_OF_A_POINT), CHUNK_JOBS):
            size = min(CHUNK_JOBS, first + count - start)
            records = table.page(self._connection, spec.id, start, size, record_dtype(spec.outputs))
            completed = records[records["state"] == JobState.COMPLETED]
            left += int(np.count_nonzero(records["state"] == JobState.PENDING))
            # What was rebuilt from its files has no time.
            ran = records[records["elapsed"] > 0]
            timed += len(ran)
            seconds += _slot_seconds(ran)
            collect(found, completed, [rule.output])
        nearly_over = bool(timed) and left * seconds < self._slice_seconds * timed
        return bool(left) and not nearly_over and rule.met(found)

    def _stop(self, spec: BatchSpec, first: int, count: int) -> None:
        jobs, tickets = control.abort(self._connection, spec.id, Reason.StopRule, first, first + count - 1)
        log.info("estimate.good_enough", batch=spec.id, rule=spec.until, first=first, jobs_not_needed=jobs)
        queue.publish(self._app, tickets)


def _slot_seconds(ran: np.ndarray) -> float:
    """How long slots were at these jobs: in each from its first to its last one, with files, syncs and commits.

    For short jobs that is many times their own time.
    """
    if not len(ran):
        return 0.0
    ran = ran[np.argsort(ran["slot"], kind="stable")]
    begins = np.flatnonzero(np.diff(ran["slot"], prepend=-1))
    first = np.minimum.reduceat(ran["started"], begins)
    last = np.maximum.reduceat(ran["started"] + ran["elapsed"], begins)
    own = np.add.reduceat(ran["elapsed"], begins, dtype=np.float64)
    return float(np.maximum(last - first, own).sum())
