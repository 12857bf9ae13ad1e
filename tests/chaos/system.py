"""A small system to be hurt: a private Redis with its log of writes, workers that are started again when they die."""

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import outputs, queue
from common.batch import BatchSpec, JobState
from common.control import Controller
from common.errors import BatchSimError
from common.ledger import Connection, batches, keys
from common.ledger.batches import BatchView
from common.options import read_options
from common.programs.program import Program
from common.submission import Submitter
from tests import support
from tests.chaos import executions, promises, shell_program
from tests.chaos.executions import Executions
from tests.chaos.expected import Told
from tests.chaos.moved_clock import MovedClock
from tests.chaos.recovery import Progress, Recovery
from tests.chaos.volume import Volume
from tests.chaos.ways import Faults, WayToDie
from tests.conftest import RedisServer
from tests.support import Running

LEASE_SECONDS = 2.0
SLICE_SECONDS = 0.2
WORKERS = 2
SLOTS_PER_WORKER = 2
SLOTS = WORKERS * SLOTS_PER_WORKER
# The promise, with what Celery needs to reconnect (2, 4, 6 … s) and the lease time on top.
RECOVERY_SECONDS = 20.0

_COMPLAINT = re.compile(r'"event": "(?:storage\.unavailable|finish\.failed)"')
_LOST = re.compile(r'"event": "(?:range\.lost|range\.reclaimed|slot\.died)"')
_COMMITTED = re.compile(r'"range": "(\d+)_\[(\d+)-(\d+)\]", "event": "slice\.committed"')


@dataclass(frozen=True)
class RunTwice:
    """Jobs that were executed more than once, and how many the faults explain."""

    jobs: int
    exact: bool
    most: int

    def __str__(self) -> str:
        return f"{'' if self.exact else 'at least '}{self.jobs:,} (explained: up to {self.most:,})"


class ChaosSystem:
    """One Redis, two workers with two slots each, one outputs directory."""

    def __init__(
        self, server: RedisServer, volume: Volume | None, root: Path, home: Path, processes: list[Running]
    ) -> None:
        self.server = server
        self.volume = volume
        self.root = root
        self.connection = Connection(server.url)
        self.controller = Controller(self.connection, queue.make_app(server.url), root)
        self.recovery = Recovery()
        self.movable_clocks = False
        #: Of the workers that are started from now on.
        self.lease_seconds = LEASE_SECONDS
        self._home = home
        self._processes = processes
        self._workers: list[Running] = []
        self._clocks: dict[int, MovedClock] = {}
        self._open: list[BatchSpec] = []
        self._completed: dict[int, int] = {}
        self._faults = Faults(self)
        self._inflicted = self._lost_before = 0
        self._executions = Executions(root) if executions.available else None
        batches.mark(self.connection)

    def close(self) -> None:
        """Stop counting."""
        if self._executions:
            self._executions.close()
        self.connection.close()

    def start_workers(self) -> None:
        """Start the workers; returns when they consume."""
        for _ in range(WORKERS):
            self._start_worker()
        support.wait_for(
            lambda: int(self.connection.command("GET", keys.SLOTS) or 0) >= SLOTS, 60, "the workers", self.state
        )

    def living(self) -> list[Running]:
        """The workers that have not ended."""
        return [running for running in self._workers if running.process.poll() is None]

    def clock_of(self, worker: Running) -> MovedClock:
        """The clock of this worker, which was started with ``movable_clocks``."""
        return self._clocks[worker.pid]

    def submit(
        self,
        jobs: int,
        job_seconds: float = 0.0,
        seed: int = 42,
        broker: str = "",
        program: Program | None = None,
        **options: Any,
    ) -> BatchSpec:
        """Submit a batch; its messages go to ``broker``, if that is not the system's own."""
        submitter = Submitter(self.connection, queue.make_app(broker or self.server.url), self.root)
        outputs_of = shell_program.OUTPUTS if program else ()
        given = {"job_seconds": job_seconds, "program": program, "outputs_of_program": outputs_of}
        return self._opened(submitter.submit(jobs, seed, options=read_options(options), **given))

    def submit_one_range(self, jobs: int, job_seconds: float, seed: int = 42) -> BatchSpec:
        """Enter a batch as a single range whose message is not published."""
        spec = BatchSpec(batches.new_id(self.connection), jobs, seed, job_seconds=job_seconds)
        outputs.prepare(self.root, spec)
        batches.submit(self.connection, spec, ranges=[(1, jobs)])
        return self._opened(spec)

    def try_submit(self, jobs: int, job_seconds: float, seed: int, **options: Any) -> BatchSpec | None:
        """Submit a batch, or None while Redis is away, or has not been refilled with what the batch waits for."""
        try:
            return self.submit(jobs, job_seconds, seed, **options)
        except BatchSimError:
            return None

    def view(self, spec: BatchSpec) -> BatchView | None:
        """The batch, or None while Redis is away or has not been refilled."""
        try:
            return batches.view(self.connection, spec.id)
        except BatchSimError:
            return None

    def note_cancel(self) -> None:
        """What slots ran of cancelled jobs is executed and not counted: as after a fault."""
        self._inflicted += 1

    def inflict(self, way: WayToDie) -> None:
        """Do it, and bring back what does not come back by itself."""
        self._inflicted += 1
        self._faults.inflict(way)
        self.revive()
        self.recovery.start()

    def suspend(self, worker: Running, *, go_on: bool = False) -> None:
        """Stop a worker with its slots, or let it go on."""
        os.killpg(worker.pid, signal.SIGCONT if go_on else signal.SIGSTOP)

    def kill_all(self) -> None:
        """Kill every worker; none is started until :meth:`revive`."""
        for running in self.living():
            running.kill()

    def revive(self) -> None:
        """Start again the workers that died, as a container engine would."""
        for running in [running for running in self._workers if running.process.poll() is not None]:
            self._workers.remove(running)
            self._start_worker()

    def look(self) -> None:
        """Revive what died, and note progress."""
        self.revive()
        views = [self.view(spec) for spec in self._open]
        known = [view for view in views if view]
        complete = len(known) == len(views)
        finished = all(view.finished for view in known)
        self.recovery.look(Progress(sum(view.done for view in known), finished) if complete else None)

    def wait_finished(self, spec: BatchSpec, timeout: float) -> None:
        """Wait until the batch is finished, reviving what dies."""

        def finished() -> bool:
            self.look()
            view = self.view(spec)
            return bool(view and view.finished) or self.forgotten(spec)

        support.wait_for(finished, timeout, f"the end of batch {spec.id}", self.state)

    def forgotten(self, spec: BatchSpec) -> bool:
        """Whether Redis was emptied after the batch was finished: then its files alone tell of it, as they shall."""
        try:
            gone = batches.is_marked(self.connection) and not batches.exists(self.connection, spec.id)
        except BatchSimError:
            return False
        return gone and (outputs.directory(self.root, spec) / outputs.SUMMARY_NAME).exists()

    def check(self, spec: BatchSpec, told: Told | None = None) -> list[JobState]:
        """Every promise holds: one right terminal state a job, files equal to an undisturbed run's, audit empty.

        Returns the states.
        """
        states = promises.check(self, spec, told or Told(), forgotten=self.forgotten(spec))
        self._completed[spec.id] = states.count(JobState.COMPLETED)
        return states

    def run_twice(self, specs: Sequence[BatchSpec]) -> RunTwice | None:
        """What was executed twice of these batches, which are all since the last call; None where nothing counts it.

        Only interrupted slices may run twice: of each slot one at each fault, one for each lease that was lost, and one
        when a batch runs out and the tail of a slice that takes too long is given to idle slots. Of faulty and
        packed batches and of programs nothing is said: executions that fail, or whose files share one, leave no event.
        """
        faults, self._inflicted = self._inflicted, 0
        lost = self._losses()
        self._open = [spec for spec in self._open if spec not in specs]
        specs = [
            spec for spec in specs
            if spec.simulation != "faulty" and not spec.program and spec.output_mode == "files"
        ]  # fmt: skip
        if self._executions is None or not specs:
            return None
        longest = max(map(self._longest_slice, specs))
        counter = self._executions
        for spec in specs:
            # The last events may still be on their way to us.
            support.wait_for(
                lambda spec=spec: not counter.exact or counter.of(spec.id) >= self._completed[spec.id],  # type: ignore[misc]
                60, f"the events of batch {spec.id}", lambda spec=spec: counter.of(spec.id),  # type: ignore[misc]
            )  # fmt: skip
        twice = sum(max(0, counter.of(spec.id) - self._completed[spec.id]) for spec in specs)
        return RunTwice(twice, counter.exact, (SLOTS * (faults + len(specs)) + lost) * longest)

    def uncommitted(self, spec: BatchSpec, done: int) -> int | None:
        """How many executions there were beyond these ``done``, so far; None where not all of them are counted."""
        counter = self._executions
        return counter.of(spec.id) - done if counter and counter.exact else None

    @property
    def counts_exactly(self) -> bool:
        """Whether no execution has escaped the count so far."""
        return self._executions is not None and self._executions.exact

    def complaints(self) -> int:
        """How often workers have said that they cannot write."""
        return sum(len(_COMPLAINT.findall(running.text())) for running in self._processes)

    def state(self) -> str:
        """What to show when waiting was in vain."""
        views = [f"{spec}: {self.view(spec)}" for spec in self._open]
        try:
            leases = self.connection.command("ZRANGE", keys.LEASES, 0, -1, "WITHSCORES")
        except BatchSimError as error:
            leases = error.message
        said = [f"{running.log.parent.name}: {running.text()[-2500:]}" for running in self._processes[-4:]]
        return "\n".join([*views, f"leases {leases}", *said])

    def _opened(self, spec: BatchSpec) -> BatchSpec:
        self._open.append(spec)
        return spec

    def _losses(self) -> int:
        total = sum(len(_LOST.findall(running.text())) for running in self._processes)
        lost, self._lost_before = total - self._lost_before, total
        return lost

    def _longest_slice(self, spec: BatchSpec) -> int:
        """Jobs that fit into a slice: by their length, or twice as many as the longest slice that was committed had."""
        if spec.job_seconds:
            return int(SLICE_SECONDS / spec.job_seconds) + 1
        found = [match for running in self._processes for match in _COMMITTED.findall(running.text())]
        lengths = [int(last) - int(first) + 1 for batch, first, last in found if int(batch) == spec.id]
        return 2 * max(lengths, default=1)

    def _start_worker(self) -> None:
        number = len(self._processes)
        own = self._home / f"worker-{number}"
        own.mkdir()
        settings = {"REDIS_URL": self.server.url, "OUTPUT_DIR": self.root, "SLICE_SECONDS": SLICE_SECONDS}
        settings |= {"LEASE_SECONDS": self.lease_seconds, "SHUTDOWN_GRACE_SECONDS": 5}
        settings |= {"TMPDIR": own, "LOG_FORMAT": "json"}
        module = "services.worker"
        if self.movable_clocks:
            module = "tests.chaos.moved_clock"
            settings["CHAOS_CLOCK"] = own / "clock"
            clock = MovedClock(own / "clock", make=True)
        command = support.python("-m", module, "--slots", str(SLOTS_PER_WORKER))
        running = support.start(command, support.environment(**settings), own, "worker")
        self._processes.append(running)
        self._workers.append(running)
        if self.movable_clocks:
            self._clocks[running.pid] = clock
