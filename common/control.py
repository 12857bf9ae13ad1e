"""What people do to a batch, whole: written down beside its files, done in the ledger, its messages published.

``control.json`` keeps what the ledger alone would forget when Redis is emptied: what was cancelled, and the hold,
throttle and priority of now. What was answered is noted, so it is never undone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError

from common import outputs, queue
from common.batch import BatchSpec, JobState
from common.errors import Conflict, StorageUnavailable
from common.ledger import Connection, batches, control, table
from common.ledger.batches import BatchView
from common.ledger.control import Field, Run
from common.ledger.ranges import Ticket
from common.notes import Notes
from common.requeue import Plan

# Runs that one step of a requeue moves; the ledger does nothing else meanwhile.
MOST_RUNS = 2000
RUN_AGAIN = (JobState.FAILED, JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.NODE_FAIL)
# People who act on one batch at once take turns.
LOCK_NAME = ".control.lock"
PATIENCE_SECONDS = 10.0


class Controller:
    """Acts on the batches of one ledger, queue and outputs directory."""

    def __init__(self, connection: Connection, app: Celery, root: Path) -> None:
        self._connection = connection
        self._app = app
        self._root = root

    def cancel(self, batch_id: int, spans: Sequence[tuple[int, int]] = (), *, state: str = "") -> int:
        """Cancel a batch, or its jobs in ``spans`` of (first, last), or only those PENDING or RUNNING.

        Returns how many; running jobs are stopped. Raises ``NotFound`` and ``StorageUnavailable``.
        """
        with self._turn(batch_id) as (view, notes):
            spans = spans or [(1, view.spec.jobs)]
            if view.ended:
                return 0
            if not state:
                # Before the ledger moves: a crash in between cancels what somebody asked to cancel.
                notes.cancel([(low, high - low + 1) for low, high in spans])
            done = 0
            for low, high in spans:
                jobs, tickets = control.cancel(self._connection, batch_id, low, high, state=state)
                done += jobs
                self._publish(tickets)
            if state:
                # Which jobs that were, only the ledger knows.
                closed = table.closed(self._connection, batch_id)
                notes.cancel([(each.first, each.count) for each in closed if each.state is JobState.CANCELLED])
            return done

    def adjust(self, batch_id: int, field: Field, value: int) -> BatchView:
        """Hold or release a batch, change its throttle or priority; returns it as it is then."""
        with self._turn(batch_id) as (view, notes):
            if view.ended:
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
            with self._reopened(view.spec, place, notes, runs):
                # Statistics are of all runs together, so those go in one step.
                step = len(runs) if missing else MOST_RUNS
                for start in range(0, len(runs), step):
                    self._requeue(batch_id, runs[start : start + step], plan if missing else None)
            return sum(count for _, count, *_ in runs)

    def _requeue(self, batch_id: int, runs: Sequence[Run], plan: Plan | None) -> None:
        tickets = control.requeue(self._connection, batch_id, runs, plan.kept if plan else None)
        if tickets is None:
            raise Conflict(f"Jobs of batch {batch_id} moved meanwhile; try again.", field="batch")
        self._publish(tickets)

    @contextmanager
    def _reopened(self, spec: BatchSpec, place: Path, notes: Notes, runs: Sequence[Run]) -> Iterator[None]:
        """Let slots write again, and make the batch count as unfinished, also when Redis is emptied in the next moment.

        Before the ledger moves: the batch may be finished anew before we look again. Put back when the ledger refuses.
        """
        summary, before = place / outputs.SUMMARY_NAME, notes.read()
        try:
            said = summary.read_bytes() if summary.exists() else b""
            outputs.staging(self._root, spec).mkdir(exist_ok=True)
            notes.run_again([(first, count) for first, count, *_ in runs])
            summary.unlink(missing_ok=True)
        except OSError as error:
            raise StorageUnavailable(f"{place}: {error.strerror}", field="OUTPUT_DIR") from error
        try:
            yield
        except Conflict:
            if batches.view(self._connection, spec.id).finished:
                notes.write(before)
                outputs.write_synced(summary, said)
                outputs.remove_staging(self._root, spec)
            raise

    @contextmanager
    def _turn(self, batch_id: int) -> Iterator[tuple[BatchView, Notes]]:
        spec = batches.view(self._connection, batch_id).spec
        place = outputs.locate(self._root, spec)
        with outputs.exclusive(place, LOCK_NAME, wait_seconds=PATIENCE_SECONDS):
            yield batches.view(self._connection, batch_id), Notes(place)

    def _publish(self, tickets: Sequence[Ticket]) -> None:
        try:
            queue.publish(self._app, tickets)
        except OperationalError:
            # The ledger has moved; the housekeeper publishes what is owed.
            return
