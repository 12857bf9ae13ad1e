"""Submit the start-up batch to the embedded form, watch it to its end, and say how it went."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from common import logs, outputs, planning, queue
from common.batch import BatchSpec, JobState
from common.errors import BatchSimError, Terminated
from common.ledger import Connection, batches
from common.ledger.batches import BatchView
from common.options import Options
from common.programs.program import Program
from common.simulations import registry
from common.submission import Submitter
from common.suspicion import warnings
from services.local.embedded import EXIT_FAILED, Embedded
from services.local.progress import make_progress
from services.local.relay import Relay
from services.local.summary import print_summary

FIRST_POLL_SECONDS = 0.02
SLOWEST_POLL_SECONDS = 0.25
# Ctrl-C: the slots finish their present jobs if they can within this time.
INTERRUPT_SECONDS = 1.0
# A Redis that others use: the worker signs off before it ends.
GOODBYE_SECONDS = 3.0
MOST_FAILURES_SHOWN = 3
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


@dataclass(frozen=True)
class Asked:
    """What shall be run: a program, or what the options name."""

    options: Options
    program: Program | None = None
    outputs_of_program: Sequence[str] = ()
    #: A number that was asked for, which NUM_JOBS of the environment is not.
    jobs: int | None = None

    def size(self, num_jobs: int) -> int:
        """Number of jobs."""
        simulation = planning.simulation_of(self.options, self.program, self.outputs_of_program)
        given = self.jobs
        if given is None and not planning.says_size(self.options, simulation):
            given = num_jobs
        return planning.size(given, self.options, simulation)


class Watch:
    """One batch of one ``batchsim run``."""

    def __init__(self, running: Embedded, relay: Relay, begin: float, asked: Asked, *, resume: bool) -> None:
        self._resume = resume
        self._asked = asked
        self._settings = running.settings
        self._supervisor = running.supervisor
        self._private = running.private
        self._begin = begin
        # Jobs that an earlier run has done.
        self._kept = 0
        logs.configure(self._settings, "run")
        registry.use(self._settings.simulations_dir)
        self._connection = Connection(self._settings.broker_url)
        app = queue.make_app(self._settings.broker_url)
        self._submitter = Submitter(self._connection, app, self._settings.output_dir, slots=self._settings.workers)
        own = outputs.read_spec(self._settings.output_dir) if resume else None
        self._progress = make_progress(own.jobs if own else asked.size(self._settings.num_jobs))
        relay.attach(self._progress.show)

    def finish(self) -> int:
        """Submit, wait, print the summary; returns the exit code."""
        spec: BatchSpec | None = None
        try:
            if self._private:
                # A new server, but not one that has forgotten anything: older batches are not to be rebuilt.
                batches.mark(self._connection)
            spec = self._submit()
            self._progress.show(
                f"Batch {spec.id}: {spec.jobs:,} jobs, {self._settings.workers} slots, seed {spec.seed}"
            )
            with self._progress:
                view = self._wait(spec.id)
            self._print_summary(view)
            self._supervisor.stop(patience_seconds=0.0 if self._private else GOODBYE_SECONDS)
            return 0 if view.succeeded else EXIT_FAILED
        except KeyboardInterrupt:
            self._print_interrupted(spec)
            return EXIT_INTERRUPTED
        except Terminated:
            self._print_interrupted(spec)
            return EXIT_TERMINATED

    def _submit(self) -> BatchSpec:
        if self._resume:
            spec, self._kept = self._submitter.resume()
            self._progress.keep(batches.view(self._connection, spec.id).done)
            return spec
        asked = self._asked
        return self._submitter.start_up(
            self._settings,
            f"run-{time.time_ns()}",
            jobs=asked.jobs,
            options=asked.options,
            program=asked.program,
            outputs_of_program=asked.outputs_of_program,
        )

    def _wait(self, batch: int) -> BatchView:
        pause = FIRST_POLL_SECONDS
        while True:
            self._supervisor.watch()
            try:
                view = batches.view(self._connection, batch)
                self._progress.update(view)
                if view.finished:
                    return view
            except BatchSimError as error:
                if not error.retryable:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.2, SLOWEST_POLL_SECONDS)

    def _print_summary(self, view: BatchView) -> None:
        wall_seconds = time.monotonic() - self._begin
        place = self._settings.output_dir
        slots = self._settings.workers
        print_summary(Console(), view, place, slots=slots, wall_seconds=wall_seconds, kept=self._kept)
        self._print_failures(view, place)
        for text in warnings(self._connection, view):
            self._progress.show(f"Warning: {text}")

    def _print_failures(self, view: BatchView, place: Path) -> None:
        """The first errors in a line each, and where all of them are."""
        found = sorted(batches.failures(self._connection, view.spec.id).items())
        for index, text in found[:MOST_FAILURES_SHOWN]:
            last = (text.strip().splitlines() or [""])[-1]
            self._progress.show(f"job {index} failed: {last}")
        if found:
            self._progress.show(f"the whole errors: {place / outputs.ERRORS_NAME}")

    def _print_interrupted(self, spec: BatchSpec | None) -> None:
        """Let the slots commit what they have done, so that the count is final, and say how to go on."""
        if spec is None:
            self._progress.show("Interrupted before the batch was submitted; nothing was run.")
            return
        self._supervisor.end("worker", patience_seconds=INTERRUPT_SECONDS)
        try:
            done = batches.view(self._connection, spec.id).counters[JobState.COMPLETED]
            count = f"{done:,} of {spec.jobs:,} jobs are done"
        except BatchSimError:
            count = "some jobs are done"
        self._progress.show(
            f"Interrupted: {count}; their CSVs stay in {self._settings.output_dir}/. "
            "To go on with the rest: make run RESUME=1 (or batchsim run --resume)"
        )
