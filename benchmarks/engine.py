"""The engine under measurement: a private Redis and real workers and API, as ``batchsim`` starts them."""

import socket
import time
import urllib.request
from pathlib import Path

from benchmarks.processes import children, lives, peak_mb, wait_for
from benchmarks.system import System, python
from common import queue
from common.ledger import batches, keys
from common.ledger.batches import BatchView
from common.options import read_options
from common.submission import Submitter
from services.worker.board import Board, SlotEntry

START_SECONDS = 60.0
_WARM_UP_JOBS = 32


class Engine(System):
    """``workers`` workers with ``slots`` slots each. ``settings`` are environment variables for the workers."""

    def __init__(self, root: Path, slots: int = 2, workers: int = 1, *, warm_up: bool = True, **settings: str) -> None:
        super().__init__(root)
        self.slots = slots * workers
        self.workers: list[str] = []
        self._slots_each = slots
        self._started = 0
        self._first_workers = workers
        self._warm_up = warm_up
        self._settings = settings

    def begin(self) -> None:
        """Start Redis and the workers; warmed up by a small batch, nothing is done for the first time."""
        super().begin()
        batches.mark(self.connection)
        self.submitter = Submitter(self.connection, queue.make_app(self.url), self.root, slots=self.slots)
        for _ in range(self._first_workers):
            self.start_worker()
        self.wait_ready()
        if self._warm_up:
            self.wait_finished(self.run(_WARM_UP_JOBS, 0.01).spec.id)

    def start_worker(self) -> None:
        """Start one more worker."""
        name = f"worker-{self._started}"
        self._started += 1
        command = python("-m", "services.worker", "--slots", str(self._slots_each))
        self.start(name, command, **self._settings)
        self.workers.append(name)

    def kill_worker(self, name: str) -> None:
        """``kill -9`` of a worker with its slots."""
        self.kill(name)
        self.workers.remove(name)

    def board(self, worker: str) -> list[SlotEntry]:
        """What the worker's slots are at; nothing while it starts."""
        for path in (self.private / worker).glob("batchsim-worker-*/board"):
            board = Board(path, self._slots_each)
            try:
                return board.entries()
            finally:
                board.close()
        return []

    def wait_ready(self) -> None:
        """Return when the ledger counts all slots and each has a process."""

        def ready() -> bool:
            entries = [entry for worker in self.workers for entry in self.board(worker)]
            counted = int(self.connection.command("GET", keys.SLOTS) or 0)
            return counted >= self.slots and all(entry.pid and lives(entry.pid) for entry in entries)

        wait_for(ready, START_SECONDS, "the workers' start", poll=0.05)

    def run(self, jobs: int, job_seconds: float = 0.0, **options: object) -> BatchView:
        """Submit a batch and wait until its last job has ended. ``options`` are those of common/options.py."""
        spec = self.submitter.submit(jobs, 42, job_seconds=job_seconds, options=read_options(options))
        while True:
            view = batches.view(self.connection, spec.id)
            if view.ended:
                return view
            time.sleep(0.02)

    def wait_finished(self, batch: int) -> None:
        """Return when the batch's results files are written."""
        while not batches.view(self.connection, batch).finished:
            # Looking costs CPU time that the jobs could have had.
            time.sleep(0.1)

    def peaks(self) -> dict[str, float]:
        """Peak resident memory of the largest slot, the first worker's main process and Redis, MB."""
        return self.peaks_mb(self.workers[0])

    def serve(self) -> str:
        """Start the API; returns its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self.start("api", python("-m", "services.api", "--no-startup-batch"), API_PORT=str(port))
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(f"{address}/health/live"), START_SECONDS, "the API's start", poll=0.05)
        return address

    def api_peak_mb(self) -> float:
        """Peak resident memory of the API's largest process, MB."""
        return max(peak_mb(pid) for pid in [self.pid("api"), *children(self.pid("api"))])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False
