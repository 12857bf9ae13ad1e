"""A slot's part of a verification: run completed jobs again and compare bytes; the ledger's books stay as they are."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import outputs, queue, results
from common.batch import BatchSpec
from common.errors import BrokerUnavailable, InvalidInput
from common.jobs import Jobs
from common.ledger import Connection, batches, table, verifications, workers
from common.ledger.table import record_dtype
from common.ledger.verifications import ALIVE_SECONDS, Part, Report
from common.settings import Settings
from common.wording import valid_text
from services.worker.board import Board, Recorder
from services.worker.guard import Guard, Limited, TimeLimitReached
from services.worker.job import limits_of
from services.worker.retrying import Draining, persist

log = structlog.get_logger()

# A slot of the worker that ran the jobs first passes them on so often, with such pauses on average, then gives in.
MOST_PASSES = 300
PASS_SECONDS = 0.1
# How soon a job notices that the worker shuts down.
LOOK_SECONDS = 0.25
# A job without a time limit may take so many times as long as before, and at least so long.
PATIENCE, LEAST_PATIENCE_SECONDS = 10.0, 60.0
# What a re-run calls itself, so that a job that looks at its attempt gives itself away.
ATTEMPT = 2


class Verifying:
    """Runs parts of verifications in one slot."""

    def __init__(
        self,
        connection: Connection,
        app: Celery,
        settings: Settings,
        worker: str,
        board: Board,
        recorder: Recorder,
        guard: Guard,
    ) -> None:
        self._connection = connection
        self._app = app
        self._root = settings.output_dir
        self._worker = worker
        self._board = board
        self._recorder = recorder
        self._guard = guard

    def run(self, part: Part) -> None:
        """Run the part and report; or pass it on to another worker, while there is one that can.

        Raises ``BatchSimError`` and kombu's OperationalError; then the part is lost.
        """
        # The pool has taken SIGUSR1 for itself once the slot was made: its handler would raise wherever we are.
        self._guard.install()
        try:
            # Its message is in no queue any more: whoever looks would soon take it for lost.
            persist(self._board, lambda: verifications.still_at_work(self._connection, part))
            spec = persist(self._board, lambda: batches.view(self._connection, part.batch)).spec
            self._run(part, spec)
        except Draining:
            log.warning("verify.left", batch=part.batch)

    def _run(self, part: Part, spec: BatchSpec) -> None:
        with self._pulse(part):
            # Imports the user's files, which may take long.
            jobs = self._jobs(spec)
        try:
            self._pass_on_or_compare(part, spec, jobs)
        finally:
            if isinstance(jobs, Jobs):
                jobs.close()

    def _pass_on_or_compare(self, part: Part, spec: BatchSpec, jobs: Jobs | str) -> None:
        fits = isinstance(jobs, Jobs) and part.worker != self._worker
        if self._board.draining or (not fits and part.passes < MOST_PASSES and self._others(spec)):
            persist(self._board, lambda: verifications.still_at_work(self._connection, part))
            queue.publish_verify(self._app, replace(part, passes=part.passes + 1), spec.partition)
            # Time for another to take it; of different length, or two slots would take their own again and again.
            time.sleep(random.uniform(0.0, 2 * PASS_SECONDS))  # noqa: S311 - no secret
            return
        with self._pulse(part):
            rest = self._compare_all(part, spec, jobs)
        if rest.jobs:
            self._pass_on(rest, spec)
            return
        persist(self._board, lambda: verifications.report(self._connection, part, _found(rest)))

    def _compare_all(self, part: Part, spec: BatchSpec, jobs: Jobs | str) -> Part:
        """Run the jobs until the worker shuts down; returns what is left of the part, with what was found."""
        store = results.open_store(outputs.locate(self._root, spec), spec)
        rest = part
        while rest.jobs and not self._stopping():
            index = rest.jobs[0]
            self._note(rest)
            why = jobs if isinstance(jobs, str) else self._compare(spec, jobs, store, index)
            if why and self._stopping():
                # It may have been interrupted, or its program killed: another worker will see.
                break
            if why:
                log.warning("job.differs", job=f"{spec.id}_{index}", why=why)
            rest = replace(
                rest,
                jobs=rest.jobs[1:],
                checked=rest.checked + 1,
                differing=(*rest.differing, (index, why)) if why else rest.differing,
                same_worker=rest.same_worker + (part.worker == self._worker),
            )
        return rest

    def _pass_on(self, rest: Part, spec: BatchSpec) -> None:
        """Let another worker run what is left, however late one comes. Raises kombu's OperationalError."""
        persist(self._board, lambda: verifications.leave(self._connection, rest))
        try:
            queue.publish_verify(self._app, rest, spec.partition)
        except OperationalError:
            self._note(rest)
            raise

    def _note(self, rest: Part) -> None:
        """Say which job we are at."""
        found = _found(rest)
        persist(
            self._board,
            lambda: verifications.at_work(self._connection, rest, rest.jobs[0], self._worker, found),
        )

    def _stopping(self) -> bool:
        return self._board.draining

    def _jobs(self, spec: BatchSpec) -> Jobs | str:
        """The batch's jobs, or why they cannot be run here."""
        try:
            # Goes with the worker's own directory, whatever becomes of this process.
            scratch = self._board.path.with_name(f"verify-{self._index()}")
            return Jobs(replace(spec, job_seconds=0.0), scratch=scratch, watch=self._recorder)
        except InvalidInput as error:
            return f"cannot be run again: {error.message}"

    def _index(self) -> int:
        """Our place on the board, which our slot has put us on."""
        return next(entry.index for entry in self._board.entries() if entry.pid == os.getpid())

    def _others(self, spec: BatchSpec) -> bool:
        alive = workers.alive(self._connection)
        return any(info.name != self._worker and info.slots and info.runs(spec) for info in alive)

    def _compare(self, spec: BatchSpec, jobs: Jobs, store: results.Store, index: int) -> str:
        """Run a job again, under its batch's limits; why it differs, or ""."""
        limits = limits_of(spec)
        # A program's memory is not ours: it has its limit from the one that starts it. The keeper looks on the board
        # whom to kill.
        run = Limited(self._guard, 0 if jobs.programs else limits.memory_mb, self._recorder.limit).run
        dtype = record_dtype(spec.outputs)
        size, seconds = dtype.itemsize, limits.time_seconds or self._patience(spec, index, dtype)
        self._recorder.begin(index, size, ATTEMPT, 0)
        self._recorder.start(time.monotonic())
        try:
            data, _ = run(jobs.result, index, ATTEMPT, seconds)
        except TimeLimitReached:
            return f"did not end within {seconds:.3g} s this time"
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the simulation's failure and not ours
            return valid_text(f"raised {type(error).__name__} this time: {error}")[:500]
        finally:
            self._recorder.stop()
        try:
            stored = store.read(index)
        except OSError as error:
            return f"has a CSV that cannot be read: {error.strerror}"
        if stored is None:
            return "has no CSV"
        return "" if stored == data else "gives other bytes than its CSV holds"

    def _patience(self, spec: BatchSpec, index: int, dtype: np.dtype[np.void]) -> float:
        """How long a job without a limit may take, s: nobody can cancel it here."""
        record = persist(self._board, lambda: table.read(self._connection, spec.id, index, 1, dtype))
        elapsed = float(record["elapsed"][0])
        return max(LEAST_PATIENCE_SECONDS, PATIENCE * elapsed)

    @contextmanager
    def _pulse(self, part: Part) -> Iterator[None]:
        """Say that this process is still at it, however long that takes; end its job when the worker shuts down."""
        over = threading.Event()

        def beat() -> None:
            beaten = time.monotonic()
            while not over.wait(LOOK_SECONDS):
                if self._board.draining:
                    # The guard takes it for a word of the main process, while a job runs.
                    os.kill(os.getpid(), signal.SIGUSR1)
                if time.monotonic() - beaten < ALIVE_SECONDS / 4:
                    continue
                try:
                    verifications.still_at_work(self._connection, part)
                    beaten = time.monotonic()
                except BrokerUnavailable as error:
                    log.warning("broker.unavailable", error=error.message)

        thread = threading.Thread(target=beat, name="verifying", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _found(part: Part) -> Report:
    return Report(part.checked, part.differing, part.same_worker)
