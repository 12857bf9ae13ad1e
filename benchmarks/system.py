"""What is measured runs in one of these: a private Redis, and processes that use it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.processes import children, peak_mb
from common.ledger import Connection
from services.local import redis_server

REDIS = "redis"


@dataclass(frozen=True)
class Result:
    """One run of a contender. ``peaks_mb`` has ``slot`` and, where there are such, ``main`` and ``redis``."""

    seconds: float
    peaks_mb: dict[str, float] = field(default_factory=dict)
    # How much of it was spent in enqueueing, and inside jobs (all slots together); 0 where that is not measured.
    sending: float = 0.0
    in_jobs: float = 0.0


class System:
    """Started on entry, gone on exit. Each process has a session of its own, and a log that :meth:`log` shows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # A socket's path must be short.
        self.private = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
        self.url = f"unix://{redis_server.socket_path(self.private)}"
        self.connection = Connection(self.url)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for name in reversed(self._processes):
            self.kill(name)
        self.connection.close()
        shutil.rmtree(self.private, ignore_errors=True)

    def begin(self) -> None:
        """Start what belongs to it."""
        self.start_redis()

    def start_redis(self) -> None:
        """Start Redis, with the data that it has written if it ran before."""
        process = self.start(REDIS, redis_server.command(redis_server.find_binary(), self.private))
        redis_server.wait_until_ready(self.private, process)

    def start(self, name: str, command: list[str], **settings: str) -> subprocess.Popen[bytes]:
        """Start a process; ``settings`` are environment variables."""
        own = self.private / name
        own.mkdir(exist_ok=True)
        environment = {**os.environ, "REDIS_URL": self.url, "OUTPUT_DIR": str(self.root), "LOG_LEVEL": "WARNING"}
        with self._log_path(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env={**environment, "TMPDIR": str(own), **settings},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._processes[name]

    def kill(self, name: str) -> None:
        """SIGKILL to the process and all its children."""
        process = self._processes[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pid(self, name: str) -> int:
        """The process's id."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """The end of what the process has printed."""
        return self._log_path(name).read_text(encoding="utf-8", errors="replace")[-4000:]

    def peaks_mb(self, main: str) -> dict[str, float]:
        """Peak resident memory of Redis, of a worker's main process, and of the largest of its slots, MB."""
        slots = [peak_mb(pid) for pid in children(self.pid(main))]
        return {
            "slot": max(slots, default=0.0),
            "main": peak_mb(self.pid(main)),
            "redis": peak_mb(self.pid(REDIS)),
        }

    def _log_path(self, name: str) -> Path:
        return self.private / f"{name}.log"


def python(*arguments: str) -> list[str]:
    """A command line of this Python."""
    return [sys.executable, *arguments]
