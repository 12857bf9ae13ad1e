"""What is done for a slot whose process died: its results are committed, and the job it died with is dealt with.

The process that takes its place does it, at once; the keeper only when none does. Two at once do no harm: the ledger
takes the first, and tells the second that the lease is gone.
"""

import os
import time
from collections.abc import Mapping

import structlog
from celery import Celery

from common import outputs, queue
from common.batch import BatchSpec, JobState, Reason
from common.ledger import Connection, batches, ranges, workers
from common.ledger.ranges import Lease
from common.ledger.table import record_packer
from common.programs.process import end_group
from common.settings import Settings
from common.syncing import sync_filesystem
from services.worker.board import Board, Progress, RunningProgram, SlotEntry
from services.worker.job import limits_of
from services.worker.slice import summarise

log = structlog.get_logger()

REASONS = {JobState.TIMEOUT: Reason.TimeLimit, JobState.OUT_OF_MEMORY: Reason.OutOfMemory}


def bury(connection: Connection, app: Celery, settings: Settings, board: Board, dead: SlotEntry) -> None:
    """Close the books of the process that said ``dead`` of its slot; nothing is done when another has its place by now.

    Raises :class:`common.errors.BatchSimError`, OSError or kombu's OperationalError; then its lease runs out.
    """
    program, progress, raw = board.program(dead.index), board.progress(dead.index), board.records(dead.index)
    texts = board.failures(dead.index)
    # Last: so all of that is the dead one's, and whatever a successor runs meanwhile is neither ended nor blamed.
    if board.read(dead.index) != dead:
        return
    _end_all(program, progress)
    held = ranges.lookup(connection, dead.token)
    if held is None:
        queue.publish(app, ranges.stopped(connection, dead.token))
        return
    spec = batches.view(connection, held.batch).spec
    lease = Lease(dead.token, held.batch, held.first, held.count, progress.attempt, progress.tries)
    in_slice = progress.record_size > 0
    # Packed results were in the dead process's memory; a file's data is in the kernel's.
    if in_slice and progress.done and spec.output_mode == "files" and progress.first == held.first:
        _commit(connection, app, settings, spec, lease, progress, raw, texts)
    struck = bool(in_slice and progress.since) and _strike(connection, app, spec, lease, progress)
    if not struck:
        # It was at no job, or at one that had been taken out of its range.
        queue.publish(app, ranges.reclaim(connection, [dead.token], crashed=False))


def end_program(board: Board, index: int) -> None:
    """Kill what slot ``index`` ran when its process died: its program, or the child that ran its slice.

    Where the kernel does not end a child with its parent, that one would go on, and write where the next one writes.
    """
    _end_all(board.program(index), board.progress(index))


def _end_all(program: RunningProgram, progress: Progress) -> None:
    for pid in (program.group, progress.runner):
        if pid:
            end_group(pid)


def _commit(
    connection: Connection,
    app: Celery,
    settings: Settings,
    spec: BatchSpec,
    lease: Lease,
    progress: Progress,
    raw: bytes,
    texts: Mapping[int, str],
) -> None:
    # A tail that was shared away meanwhile is another's.
    done = min(progress.done, lease.count)
    raw = raw[: done * progress.record_size]
    texts = {job: text for job, text in texts.items() if job < progress.first + done}
    work = summarise(spec.outputs, progress.first, 0.0, raw, texts, limits_of(spec), progress.tries)
    if settings.durability != "none":
        place = os.open(outputs.directory(settings.output_dir, spec), os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_filesystem(place)
        finally:
            os.close(place)
    # Kept until the job that it died with is dealt with, also when it is another batch's turn.
    verdict = ranges.commit(
        connection, lease, work, lease_seconds=settings.lease_seconds, slice_seconds=settings.slice_seconds, keep=True
    )
    queue.publish(app, ranges.tickets(connection, verdict.tickets))
    if verdict.ended:
        queue.publish_finish(app, spec.id, spec.partition)


def _strike(connection: Connection, app: Celery, spec: BatchSpec, lease: Lease, progress: Progress) -> bool:
    """Deal with the job that the process died with; False when that is not in the range, or the lease is gone."""
    job = progress.first + progress.done
    state = JobState(progress.ended_as) if progress.ended_as else None
    reason = REASONS.get(state, Reason.CrashLimit) if state else Reason.CrashLimit
    signal = max(0, -progress.exit_code)
    nothing = (float("nan"),) * len(spec.outputs)
    holder = ranges.holder(connection, lease.token)
    slot = workers.slot_number(connection, holder) if holder else 0
    # On the clock that all processes of the machine share; the record has the time of day.
    ago = time.monotonic() - progress.since
    elapsed = progress.ended - progress.since if progress.ended else ago
    record = record_packer(spec.outputs).pack(
        state or JobState.FAILED, min(255, progress.attempt), max(0, progress.exit_code), slot, signal, reason,
        time.time() - ago, elapsed, 0.0, 0, *nothing,
    )  # fmt: skip
    text = f"The process died while it ran this job: {_how(state, progress, spec)}."
    struck, ended, tokens = ranges.strike(
        connection, lease.token, job, state=state, limit=spec.crash_limit, record=record, text=text
    )
    if not struck:
        return False
    log.error("slot.died", job=f"{spec.id}_{job}", how=_how(state, progress, spec))
    queue.publish(app, ranges.tickets(connection, tokens))
    if ended:
        queue.publish_finish(app, spec.id, spec.partition)
    return True


def _how(state: JobState | None, progress: Progress, spec: BatchSpec) -> str:
    if state is JobState.TIMEOUT:
        return f"it did not stop at its limit of {spec.time_limit_seconds:g} s and was killed"
    if state is JobState.OUT_OF_MEMORY:
        return "it took more memory than its limit and was killed"
    return f"signal {-progress.exit_code}" if progress.exit_code < 0 else f"exit code {progress.exit_code}"
