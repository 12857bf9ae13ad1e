"""A small system to be hurt: a private Redis with its log of writes, workers that are started again when they die."""

import os
import signal
import subprocess
import time
from enum import Enum
from pathlib import Path

from common import queue
from common.audit import audit, verify
from common.batch import BatchSpec
from common.errors import BatchSimError
from common.ledger import Connection, batches, keys
from common.ledger.batches import BatchView
from common.submission import Submitter
from tests import support
from tests.conftest import RedisServer
from tests.support import Running

LEASE_SECONDS = 2.0
SLICE_SECONDS = 0.2
# The promise, with what Celery needs to reconnect (2, 4, 6 … s) and the lease time on top.
RECOVERY_SECONDS = 20.0


class WayToDie(Enum):
    """What can happen to a part of the system."""

    KILL_SLOT = "kill -9 of a slot"
    KILL_WORKER = "kill -9 of a worker with its slots"
    TERM_WORKER = "SIGTERM of a worker"
    STOP_WORKER = "SIGSTOP of a worker for longer than its lease"
    KILL_REDIS = "kill -9 of Redis, started again with its log"
    STOP_REDIS = "SIGSTOP of Redis for longer than a lease"
    EMPTY_REDIS = "FLUSHALL of Redis"
    LOSE_MESSAGES = "all messages in the queue vanish"
    DOUBLE_MESSAGES = "all messages in the queue are there twice"

    @property
    def hits_workers(self) -> bool:
        """Whether it needs a worker to strike."""
        return self in (WayToDie.KILL_SLOT, WayToDie.KILL_WORKER, WayToDie.TERM_WORKER, WayToDie.STOP_WORKER)


class Phase(Enum):
    """When it happens, from what the ledger shows at that moment."""

    QUEUED = "nothing was claimed yet"
    MID_JOB = "slots are at a job"
    COMMITTING = "slots are at a commit that Redis does not answer yet"
    FINISHING = "the last job has ended, the results files are not written"


class ChaosSystem:
    """One Redis, two workers with two slots each, one outputs directory."""

    def __init__(self, server: RedisServer, root: Path, home: Path, processes: list[Running]) -> None:
        self.server = server
        self.root = root
        self.connection = Connection(server.url)
        self._home = home
        self._processes = processes
        self._workers: list[Running] = []
        batches.mark(self.connection)

    def start_workers(self, count: int = 2) -> None:
        """Start workers; returns when they consume."""
        for _ in range(count):
            self._start_worker()
        support.wait_for(lambda: int(self.connection.command("GET", keys.SLOTS) or 0) >= 2 * count, 30, "the workers")

    def submit(self, jobs: int, job_seconds: float = 0.0, seed: int = 42) -> BatchSpec:
        """Submit a batch."""
        submitter = Submitter(self.connection, queue.make_app(self.server.url), self.root)
        return submitter.submit(jobs, seed, job_seconds=job_seconds)

    def try_submit(self, jobs: int, job_seconds: float, seed: int) -> BatchSpec | None:
        """Submit a batch, or None while Redis is away."""
        try:
            return self.submit(jobs, job_seconds, seed)
        except BatchSimError:
            return None

    def view(self, spec: BatchSpec) -> BatchView | None:
        """The batch, or None while Redis is away or has not been refilled."""
        try:
            return batches.view(self.connection, spec.id)
        except BatchSimError:
            return None

    def inflict(self, way: WayToDie) -> None:
        """Do it, and bring back what does not come back by itself."""
        getattr(self, f"_{way.name.lower()}")()

    def revive(self) -> None:
        """Start again the workers that died, as a container engine would."""
        for running in [running for running in self._workers if running.process.poll() is not None]:
            self._workers.remove(running)
            self._start_worker()

    def wait_finished(self, spec: BatchSpec, timeout: float) -> BatchView:
        """Wait until the batch is finished, reviving what dies."""

        def finished() -> BatchView | None:
            self.revive()
            view = self.view(spec)
            return view if view and view.finished else None

        return support.wait_for(finished, timeout, f"the end of batch {spec.id}", lambda: self._state(spec))  # type: ignore[return-value]

    def check(self, spec: BatchSpec) -> None:
        """Every promise holds: one terminal state a job, files equal to an undisturbed run's, audit empty."""
        view = self.view(spec)
        assert view is not None
        assert view.state == "COMPLETED", self._state(spec)
        assert audit(self.connection, self.root, spec.id) == []
        assert verify(self.root, spec, sample=spec.jobs) == []

    def _state(self, spec: BatchSpec) -> str:
        logs = "\n".join(running.text()[-1500:] for running in self._workers)
        return f"{self.view(spec)}\nleases {self.connection.command('ZRANGE', keys.LEASES, 0, -1)}\n{logs}"

    def _start_worker(self) -> None:
        number = len(self._processes)
        own = self._home / f"worker-{number}"
        own.mkdir()
        settings = {"REDIS_URL": self.server.url, "OUTPUT_DIR": self.root, "SLICE_SECONDS": SLICE_SECONDS}
        settings |= {"LEASE_SECONDS": LEASE_SECONDS, "SHUTDOWN_GRACE_SECONDS": 5, "TMPDIR": own, "LOG_FORMAT": "json"}
        running = support.start(
            support.python("-m", "services.worker", "--slots", "2"), support.environment(**settings), own, "worker"
        )
        self._processes.append(running)
        self._workers.append(running)

    def _a_worker(self) -> Running:
        return support.wait_for(  # type: ignore[return-value]
            lambda: next((running for running in self._workers if running.process.poll() is None), None), 10, "a worker"
        )

    def _kill_slot(self) -> None:
        worker = self._a_worker()
        pids = subprocess.run(["pgrep", "-P", str(worker.pid)], capture_output=True, text=True, check=False).stdout
        for pid in pids.split()[:1]:
            os.kill(int(pid), signal.SIGKILL)

    def _kill_worker(self) -> None:
        self._a_worker().kill()

    def _term_worker(self) -> None:
        self._a_worker().signal(signal.SIGTERM)

    def _stop_worker(self) -> None:
        worker = self._a_worker()
        os.killpg(worker.pid, signal.SIGSTOP)
        time.sleep(LEASE_SECONDS * 1.5)  # the fault itself: it lasts longer than the lease
        os.killpg(worker.pid, signal.SIGCONT)

    def _kill_redis(self) -> None:
        self.server.stop()
        self.server.restart()

    def _stop_redis(self) -> None:
        self.server.process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_SECONDS * 1.5)  # the fault itself
        self.server.process.send_signal(signal.SIGCONT)

    def _empty_redis(self) -> None:
        self.connection.command("FLUSHALL")

    def _lose_messages(self) -> None:
        self.connection.command("DEL", queue.QUEUE)

    def _double_messages(self) -> None:
        for message in self.connection.command("LRANGE", queue.QUEUE, 0, -1):
            self.connection.command("LPUSH", queue.QUEUE, message)
