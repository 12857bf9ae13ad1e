"""The engine under measurement: a private Redis and one real worker process, as ``batchsim run`` starts them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from common import queue
from common.ledger import Connection, batches
from common.ledger.batches import BatchView
from common.submission import Submitter
from services.local import redis_server


class Engine:
    """Started on entry, gone on exit. ``settings`` are environment variables for the worker."""

    def __init__(self, root: Path, slots: int = 2, **settings: str) -> None:
        self.root = root
        self._slots = slots
        self._settings = settings
        self._private = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
        self.url = f"unix://{redis_server.socket_path(self._private)}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        server = self._start(redis_server.command(redis_server.find_binary(), self._private))
        redis_server.wait_until_ready(self._private, server)
        self.connection = Connection(self.url)
        batches.mark(self.connection)
        self.submitter = Submitter(self.connection, queue.make_app(self.url), self.root, slots=self._slots)
        self._start([sys.executable, "-m", "services.worker", "--slots", str(self._slots)])
        while int(self.connection.command("GET", "bs:slots") or 0) < self._slots:
            time.sleep(0.05)
        return self

    def __exit__(self, *_exc: object) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self._private, ignore_errors=True)

    def run(self, jobs: int, job_seconds: float = 0.0) -> BatchView:
        """Submit a batch and wait until its last job has ended."""
        spec = self.submitter.submit(jobs, 42, job_seconds=job_seconds)
        while True:
            view = batches.view(self.connection, spec.id)
            if view.ended:
                return view
            time.sleep(0.02)

    def rss_mb(self) -> dict[str, float]:
        """Peak resident memory of Redis and of the worker's processes, MB."""
        server, worker = self._processes
        children = subprocess.run(["pgrep", "-P", str(worker.pid)], capture_output=True, text=True, check=False)
        slots = [_peak_mb(int(pid)) for pid in children.stdout.split()]
        return {"redis": _peak_mb(server.pid), "worker main": _peak_mb(worker.pid), "slot": max(slots, default=0.0)}

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "REDIS_URL": self.url, "OUTPUT_DIR": str(self.root), "LOG_LEVEL": "WARNING"}
        process = subprocess.Popen(
            command,
            env={**environment, **self._settings, "TMPDIR": str(self._private)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
