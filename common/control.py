"""What people do to a batch, whole: written down beside its files, done in the ledger, its messages published.

``control.json`` keeps what the ledger alone would forget when Redis is emptied: what was cancelled, and the hold,
throttle, priority and max_fails of now. What was answered is noted, so it is never undone; a cancel that could not be
noted says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import outputs, queue
from common.batch import JobState
from common.errors import Conflict, StorageUnavailable
from common.ledger import Connection, batches, control
from common.ledger.batches import BatchView
from common.ledger.control import Field, Run
from common.ledger.ranges import Ticket
from common.notes import Interval, Notes, united
from common.reopening import Reopening, cancelled_in
from common.requeue import Plan, steps
from common.statistics import Moments

log = structlog.get_logger()

RUN_AGAIN = (JobState.FAILED, JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.NODE_FAIL)
# People who act on one batch at once take turns.
LOCK_NAME = ".control.lock"
PATIENCE_SECONDS = 10.0
# Of what a requeue makes wait so much has its message at once; the rest is owed, and the housekeeper publishes it.
MOST_PUBLISHED = 2000


class Controller:
    """Acts on the batches of one ledger, queue and outputs directory."""

    def __init__(self, connection: Connection, app: Celery, root: Path) -> None:
        self._connection = connection
        self._app = app
        self._root = root

    def cancel(
        self,
        batch_id: int,
        spans: Sequence[tuple[int, int]] = (),
        *,
        state: str = "",
        warn: Callable[[str], object] = log.warning,
    ) -> int:
        """Cancel a batch, or its jobs in ``spans`` of (first, last), or only those PENDING or RUNNING, in one step.

        Returns how many; running jobs are stopped. When the volume cannot note it, it is done all the same, and
        ``warn`` is told what that means. Raises ``NotFound``.
        """
        try:
            with self._turn(batch_id) as (view, notes):
                return self._cancel(view, notes, spans, state, warn)
        except StorageUnavailable as error:
            # Not even a lock file can be made; nobody else can note anything either.
            return self._cancel(batches.view(self._connection, batch_id), error.message, spans, state, warn)

    def _cancel(
        self,
        view: BatchView,
        notes: Notes | str,
        spans: Sequence[tuple[int, int]],
        state: str,
        warn: Callable[[str], object],
    ) -> int:
        """As :meth:`cancel`; instead of the notes there may be the reason why there are none."""
        batch_id = view.spec.id
        if view.ended:
            return 0
        asked = united([(low, high - low + 1) for low, high in spans or [(1, view.spec.jobs)]])
        if not state:
            # Before the ledger moves: a crash in between cancels what somebody asked to cancel.
            _note(notes, asked)
        jobs, tickets = control.cancel_spans(
            self._connection, batch_id, [(first, first + count - 1) for first, count in asked], state=state
        )
        self._publish(tickets)
        # Which jobs had not completed by then, only the ledger knows: what lies there of them was never committed.
        closed = cancelled_in(self._connection, batch_id)
        problem = _note(notes, closed if state else asked, closed)
        if problem and jobs:
            warn(f"The cancel could not be noted ({problem}): if Redis is emptied, these jobs may run.")
        return jobs

    def adjust(self, batch_id: int, field: Field, value: int) -> BatchView:
        """Hold or release a batch, change its throttle, priority or max_fails; returns it as it is then.

        Of one that has ended only ``max_fails``, for a requeue: else that would end like the batch did.
        """
        with self._turn(batch_id) as (view, notes):
            if view.ended and field != "max_fails":
                raise Conflict(f"Batch {batch_id} has ended: {view.state}.", field="batch")
            notes.set(field, value)
            self._publish(control.adjust(self._connection, batch_id, field, value))
            return batches.view(self._connection, batch_id)

    def requeue(self, batch_id: int, states: Sequence[JobState] = RUN_AGAIN, *, missing: bool = False) -> int:
        """Run again the jobs in these states, and with ``missing`` those whose result cannot be read; returns how many.

        Raises :class:`Conflict` when the batch moves meanwhile, or its files have been moved away.
        """
        with self._turn(batch_id) as (view, notes):
            place = outputs.locate(self._root, view.spec)
            if missing and not view.ended:
                raise Conflict(
                    f"Batch {batch_id} still runs; what is missing shows when it has ended.", field="missing"
                )
            if place != outputs.directory(self._root, view.spec):
                raise Conflict(f"The files of batch {batch_id} were moved to {place}; submit it anew.", field="batch")
            if view.ended and not view.finished:
                raise Conflict(f"The results files of batch {batch_id} are being written; try again.", field="batch")
            plan = Plan(self._connection, view, place, states, missing=missing)
            runs = list(plan.runs())
            if not runs:
                return 0
            with Reopening(self._connection, self._root, view.spec, place, notes).of(runs):
                self._requeue(batch_id, runs, plan.kept)
            return sum(count for _, count, *_ in runs)

    def _requeue(self, batch_id: int, runs: Sequence[Run], kept: Mapping[str, Moments]) -> None:
        """Move the runs, step by step, and then publish. Raises :class:`Conflict`."""
        lost = [run for run in runs if run[2] is JobState.COMPLETED]
        # First, while nothing else moves: the statistics are those without all of them.
        statistics = kept if lost else None
        tickets: list[Ticket] = []
        for step in [*steps(lost), *steps([run for run in runs if run[2] is not JobState.COMPLETED])]:
            moved = control.requeue(self._connection, batch_id, step, statistics)
            if moved is None:
                raise Conflict(f"Jobs of batch {batch_id} moved meanwhile; try again.", field="batch")
            statistics = None
            tickets += moved
        # Only now, or the batch might end between two steps.
        self._publish(tickets[:MOST_PUBLISHED])

    @contextmanager
    def _turn(self, batch_id: int) -> Iterator[tuple[BatchView, Notes]]:
        spec = batches.view(self._connection, batch_id).spec
        place = outputs.locate(self._root, spec)
        with outputs.exclusive(place, LOCK_NAME, wait_seconds=PATIENCE_SECONDS):
            notes = Notes(place)
            Reopening(self._connection, self._root, spec, place, notes).put_right_if_left()
            yield batches.view(self._connection, batch_id), notes

    def _publish(self, tickets: Sequence[Ticket]) -> None:
        try:
            queue.publish(self._app, tickets)
        except OperationalError:
            # The ledger has moved; the housekeeper publishes what is owed.
            return


def _note(notes: Notes | str, asked: Sequence[Interval], closed: Sequence[Interval] = ()) -> str:
    """Note a cancel; returns why that is not possible, or ""."""
    if isinstance(notes, str):
        return notes
    try:
        notes.cancel(asked, closed)
    except StorageUnavailable as error:
        return error.message
    return ""
