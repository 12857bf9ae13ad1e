"""A slot: one worker process, which takes a range, runs it slice by slice, and commits each slice."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import outputs, queue
from common.batch import INITIAL_RANGES, range_text
from common.errors import BatchSimError, BrokerUnavailable, InvalidInput, StorageUnavailable
from common.ledger import Connection, batches, ranges, workers
from common.ledger.ranges import Lease, Slice, Ticket, Verdict
from common.ledger.verifications import Part
from common.settings import Settings
from common.simulations import registry
from common.wording import valid_text
from services.worker import storage
from services.worker.aftermath import bury
from services.worker.board import AWAITING_STORAGE, FINISHING, VERIFYING, Board, SlotEntry
from services.worker.failure import MOST_LINE_CHARACTERS
from services.worker.guard import Guard
from services.worker.isolation import Isolation, ProcessDied
from services.worker.job import BatchJob, limits_of
from services.worker.opened import OpenBatches
from services.worker.retrying import Draining, Pause, persist
from services.worker.slice import SliceFailure, nothing_of, run_slice, shortened
from services.worker.verifying import Verifying

T = TypeVar("T")
log = structlog.get_logger()

# How long a slot waits after a range that it could not run though its claim said so.
UNFIT_SECONDS = 1.0
# For so long a slot takes ranges without tickets before it looks into its queues again.
TICKETLESS_SECONDS = 10.0


class Slot:
    """Runs what tickets lead it to; lives as long as its process."""

    def __init__(self, settings: Settings, app: Celery, board: Board, worker: str, index: int) -> None:
        registry.use(settings.simulations_dir)
        self._settings = settings
        self._app = app
        self._board = board
        self._worker = worker
        self._index = index
        self._name = f"{worker}/{index}"
        self._connection = Connection(settings.broker_url)
        self._number: int | None = None
        self._guard = Guard()
        self._recorder = board.recorder(index)
        self._opened = OpenBatches(self._connection, settings, board, self._recorder, self._name, index)
        self._isolation: Isolation | None = None
        # Whether a job has run in this very process.
        self._has_run = False
        # Whether the last range was given back, for something else comes first.
        self._released = False
        self._recover_predecessor()

    def serve(self, batch: int, token: str, partition: str) -> None:
        """Take the range that this ticket stands for, if one still waits, and work on it as long as it is our turn."""
        # Here, because the pool has set a SIGUSR1 of its own since this object was made.
        self._guard.install()
        # Of a stale one nobody would see that it was taken, and a queue full of them is drained for minutes.
        self._board.note_ticket(self._index)
        since, self._released = time.monotonic(), False
        try:
            lease, cut_off = self._persist(lambda: self._claim((batch, token), partition))
            if lease is None:
                log.debug("ticket.stale", batch=batch, token=token)
            while lease is not None:
                self._board.write(self._index, os.getpid(), lease.token)
                self._publish(cut_off)
                fit = self._work(lease)
                if not fit or self._released or self._board.draining or time.monotonic() - since > TICKETLESS_SECONDS:
                    return
                # The tickets of what comes next may have gone to slots that cannot run it.
                lease, cut_off = self._persist(lambda: self._claim(None, partition))
        except Draining:
            log.warning("range.left", batch=batch, token=token)
        except Exception as error:
            # A defect of ours: let the range be offered again now, and not when its lease has run out. As one that was
            # lost: job by job, so that one whose result the ledger cannot take is found, and ends.
            log.exception("slot.failed", batch=batch)
            held = self._board.read(self._index)
            if held.has_range:
                self._publish_all(ranges.reclaim(self._connection, [held.token], fault=_fault(error)))
        finally:
            self._board.write(self._index, os.getpid())

    def _claim(self, ticket: tuple[int, str] | None, partition: str) -> tuple[Lease | None, tuple[str, ...]]:
        return ranges.claim(
            self._connection,
            ticket,
            worker=self._worker,
            slot=self._name,
            lease_seconds=self._settings.lease_seconds,
            slice_seconds=self._settings.slice_seconds,
            jobs_per_task=self._settings.jobs_per_task,
            partition=partition,
            simulations=registry.capabilities(),
        )

    def _work(self, lease: Lease) -> bool:
        """Run a range, slice by slice, as long as it is our turn; False when this process cannot run its batch."""
        current: Lease | None = lease
        while current is not None:
            try:
                job = self._opened.fitting(current.batch)
                job.attempt = current.attempt
                work = self._run(job, current)
                if not job.fits():
                    raise InvalidInput("what it runs has changed meanwhile", field="program")
                self._note_differences(job)
            except ProcessDied:
                self._bury(self._board.read(self._index))
                return True
            except InvalidInput as error:
                # Its file has changed since the claim, which from now on passes over it here.
                log.error("simulation.unfit", batch=current.batch, error=error.message)
                self._commit(current, nothing_of(current), give_back=True)
                # Should claim and run never agree, that must not be all that this slot does.
                time.sleep(UNFIT_SECONDS)
                return False
            except SliceFailure as failure:
                self._abandon(current, failure.work, failure.reason)
                return True
            except StorageUnavailable as error:
                self._abandon(current, None, error)
                return True
            current = self._commit(current, work, give_back=self._board.draining or not work.done)
        return True

    def _run(self, job: BatchJob, lease: Lease) -> Slice:
        """Run a slice and make its results durable; in a child, if jobs of the batch have killed their process.

        A program has a process of its own already.
        """
        run = partial(
            run_slice,
            job,
            lease.first,
            lease.count,
            # A worker was lost with this range: job by job, so that the ledger knows which it is at.
            seconds=0.0 if lease.careful else self._settings.slice_seconds,
            attempt=lease.attempt,
            tries=lease.tries,
            slot=self._slot_number(),
            stopping=lambda: self._board.draining,
            recorder=self._recorder,
            guard=self._guard,
        )
        if lease.crashes and not self._has_run and not job.spec.program:
            self._isolation = self._isolation or Isolation(self._board, self._index)
            return self._isolation.run(job, run)
        self._has_run = True
        work = run()
        job.sync()
        return work

    def _note_differences(self, job: BatchJob) -> None:
        """Let people know that a job's bytes depend on the attempt; one of them is enough."""
        if job.differing:
            first, attempt = job.differing[0], job.attempt
            self._persist(lambda: batches.note_difference(self._connection, job.spec.id, first, attempt))
            log.warning("job.differs", job=f"{job.spec.id}_{first}", attempt=attempt)
            job.differing.clear()

    def _commit(self, lease: Lease, work: Slice, *, give_back: bool) -> Lease | None:
        settings = self._settings
        # Of all partitions that the worker serves: its slots may be all that there are for one of them.
        partitions = () if give_back else settings.worker_partitions.split(",")
        verdict: Verdict = self._persist(
            lambda: ranges.commit(
                self._connection,
                lease,
                work,
                lease_seconds=settings.lease_seconds,
                slice_seconds=settings.slice_seconds,
                give_back=give_back,
                errands=tuple(map(queue.errands_name, partitions)),
                partitions=[(name, queue.queue_name(name)) for name in partitions],
            )
        )
        self._publish(verdict.tickets)
        if verdict.word == "shrunk":
            spec = self._opened.spec(lease.batch)
            work = shortened(work, spec.outputs, verdict.count, limits_of(spec), lease.tries)
            return self._commit(lease, work, give_back=give_back)
        if verdict.word == "stale":
            log.warning("range.lost", batch=lease.batch, range=range_text(lease.batch, lease.first, lease.count))
            self._publish_all(self._persist(lambda: ranges.stopped(self._connection, lease.token)))
            return None
        self._report(lease, work)
        # Another's turn, or an errand's: its message is in the queue, and not to be found without looking there.
        self._released = verdict.word == "released"
        if verdict.ended:
            self._close_batch(lease.batch)
        if verdict.word == "continue":
            return lease.after(verdict)
        return None

    def _close_batch(self, batch: int) -> None:
        """Every job has ended: let the results files be written."""
        partition = self._opened.spec(batch).partition
        self._opened.forget(batch)
        log.info("batch.ended", batch=batch)
        try:
            queue.publish_finish(self._app, batch, partition)
        except OperationalError as error:
            log.warning("publish.failed", error=str(error))

    def finish(self, batch: int) -> None:
        """Write the results files of a batch that has ended; a failure is left to the housekeeper's next try."""
        # Not at the top: a slot that never finishes a batch need not carry Arrow's 60 MB.
        from services.worker.finish import finish

        self._board.write(self._index, os.getpid(), f"{FINISHING}{batch}")
        try:
            if finish(self._connection, self._settings.output_dir, batch, self._name):
                log.info("batch.finished", batch=batch)
        except (BatchSimError, OSError) as error:
            log.error("finish.failed", batch=batch, error=str(error))
        finally:
            self._board.write(self._index, os.getpid())

    def verify(self, part: Part) -> None:
        """Run completed jobs again and compare; nothing is lost when this fails, and whoever asked sees it."""
        self._board.write(self._index, os.getpid(), f"{VERIFYING}{part.name}-{part.number}")
        self._has_run = True
        found = Verifying(
            self._connection, self._app, self._settings, self._worker, self._board, self._recorder, self._guard
        )
        try:
            found.run(part)
        except (BatchSimError, OperationalError, OSError) as error:
            log.error("verify.failed", batch=part.batch, error=str(error))
        finally:
            self._board.write(self._index, os.getpid())

    def _abandon(self, lease: Lease, done: Slice | None, reason: StorageUnavailable) -> None:
        """The volume refuses results: commit what is safely there, give the rest back, wait until it accepts again."""
        log.error("storage.unavailable", batch=lease.batch, error=reason.message)
        job = self._opened.get(lease.batch)
        synced = done if done is not None and done.done and job is not None and job.try_sync() else None
        self._opened.forget(lease.batch)
        self._commit(lease, synced or nothing_of(lease), give_back=True)
        # The range is another's now: whoever looks at the board must not take our waiting for work on it.
        self._board.write(self._index, os.getpid(), f"{AWAITING_STORAGE}{lease.batch}")
        if self._persist(lambda: batches.view(self._connection, lease.batch)).ended:
            # Its directory was closed to us on purpose.
            return
        pause = Pause(self._board)
        while not storage.accepts(self._connection, self._board, self._settings.output_dir, lease.batch):
            pause.once()

    def _slot_number(self) -> int:
        if self._number is None:
            self._number = self._persist(lambda: workers.slot_number(self._connection, self._name))
        return self._number

    def _publish(self, tokens: tuple[str, ...]) -> None:
        """Publish the tickets of these ranges; what fails here is owed, and the housekeeper pays."""
        try:
            self._publish_all(ranges.tickets(self._connection, tokens))
        except BrokerUnavailable as error:
            log.warning("publish.failed", error=str(error))

    def _publish_all(self, tickets: Sequence[Ticket]) -> None:
        try:
            queue.publish(self._app, tickets)
        except OperationalError as error:
            log.warning("publish.failed", error=str(error))

    def _report(self, lease: Lease, work: Slice) -> None:
        job = self._opened.get(lease.batch)
        if job is None or not work.done:
            return
        if job.spec.jobs > INITIAL_RANGES:
            log.info("slice.committed", batch=lease.batch, range=range_text(lease.batch, work.first, work.done))
            return
        place = outputs.directory(self._settings.output_dir, job.spec)
        for index in range(work.first, work.first + work.done):
            if index in work.failures:
                log.error(f"Job {index} failed: {work.failures[index].strip().splitlines()[-1]}", batch=lease.batch)
            else:
                log.info(f"Job {index} completed: {place / outputs.job_name(index)}", batch=lease.batch)

    def _persist(self, action: Callable[[], T]) -> T:
        return persist(self._board, action)

    def _recover_predecessor(self) -> None:
        """The process that had this slot before died: commit what it had done, and see to the job it died with."""
        before = self._board.read(self._index)
        if before.token:
            self._bury(before)
        self._board.write(self._index, os.getpid())

    def _bury(self, dead: SlotEntry) -> None:
        try:
            bury(self._connection, self._app, self._settings, self._board, dead)
        except (BatchSimError, OperationalError, OSError) as error:
            # The lease runs out, and the range is offered again then.
            log.warning("slot.not_buried", error=str(error))


def _fault(error: Exception) -> str:
    """What people read of a defect of ours that ended a slice, in one line."""
    lines = str(error).strip().splitlines() or [""]
    return valid_text(f"{type(error).__name__}: {lines[-1]}")[:MOST_LINE_CHARACTERS]
