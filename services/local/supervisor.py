"""Starts the processes of the embedded form, watches them, and leaves nothing behind."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from common.errors import BatchSimError

# A process that dies so often within its first seconds will not live by being started again.
MAX_QUICK_DEATHS = 3
QUICK_SECONDS = 10.0

_PR_SET_PDEATHSIG = 1
_WAITING = {signal.SIGINT, signal.SIGTERM}
_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None


class ProcessDied(BatchSimError):
    """A part of the embedded form does not stay alive."""


@dataclass
class Part:
    """A process that is kept alive."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    started: float
    # What a quiet part prints is kept for the report of its death, and not shown.
    quiet: bool = False
    quick_deaths: int = 0
    tail: list[str] = field(default_factory=list)


class Supervisor:
    """Keeps parts alive in a private directory; ``show`` receives each line that they print."""

    def __init__(self, show: Callable[[str], None]) -> None:
        # Short, because of the socket in it, and in /tmp although TMPDIR may say otherwise, for the same reason.
        self.directory = Path(tempfile.mkdtemp(prefix="batchsim-", dir="/tmp"))
        self._parts: list[Part] = []
        self._show = show

    def start(
        self, name: str, command: list[str], environment: dict[str, str] | None = None, *, quiet: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a part; its temporary files go to the private directory."""
        full = {**os.environ, **(environment or {}), "TMPDIR": str(self.directory)}
        with _signals_later():
            part = Part(name, command, full, self._spawn(command, full), time.monotonic(), quiet)
            self._parts.append(part)
            self._pump(part)
        return part.process

    def watch(self) -> None:
        """Start again what died. Raises :class:`ProcessDied` when that does not help."""
        for part in self._parts:
            code = part.process.poll()
            if code is None:
                continue
            quick = time.monotonic() - part.started < QUICK_SECONDS
            part.quick_deaths = part.quick_deaths + 1 if quick else 0
            if part.quick_deaths >= MAX_QUICK_DEATHS:
                last = "\n  ".join(part.tail[-10:])
                raise ProcessDied(
                    f"The {part.name} process ended with code {code} {part.quick_deaths} times:\n  {last}"
                )
            # Its children first: they hold ports, and would outlive us.
            _kill_session(part.process)
            self._show(f"batchsim: the {part.name} process ended with code {code}; it is started again")
            with _signals_later():
                part.process, part.started = self._spawn(part.command, part.environment), time.monotonic()
                self._pump(part)

    def end(self, name: str, *, patience_seconds: float) -> None:
        """End one part: SIGTERM, then SIGKILL when the patience is over."""
        for part in [part for part in self._parts if part.name == name]:
            self._end(part, time.monotonic() + patience_seconds)

    def stop(self, *, patience_seconds: float) -> None:
        """End all parts within the time, without a word if there is none, and remove the directory.

        The last started is ended first, so the server, started first, still hears what the others commit.
        """
        deadline = time.monotonic() + patience_seconds
        clients = list(reversed(self._parts[1:]))
        for part in clients if patience_seconds else ():
            _ask_to_end(part.process)
        for part in clients:
            # Asked already; a second SIGTERM would mean "at once" to a worker.
            self._await_end(part, deadline)
        for part in list(self._parts):
            self._end(part, deadline)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, part: Part, deadline: float) -> None:
        if deadline > time.monotonic():
            _ask_to_end(part.process)
        self._await_end(part, deadline)

    def _await_end(self, part: Part, deadline: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            part.process.wait(max(0.0, deadline - time.monotonic()))
        _kill_session(part.process)
        part.process.wait()
        self._parts.remove(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop(patience_seconds=0.5)

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C reaches only us and we choose the order in which to stop.
        return subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_begin,
        )

    def _pump(self, part: Part) -> None:
        stream = part.process.stdout

        def pump() -> None:
            assert stream is not None
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                part.tail.append(line)
                del part.tail[:-50]
                if not part.quiet:
                    self._show(line)
            stream.close()

        threading.Thread(target=pump, name=f"log-{part.name}", daemon=True).start()


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait: an exception in one of Python's fork hooks would be printed there and forgotten.

    Threads that start meanwhile leave these signals to the main one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """In the child: no signal waits any more, and it dies with its parent."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITING)
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM for the leader alone: its own children are its own business."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a part and for all that it has started; jobs' programs lead process groups of their own."""
    # The part's own processes first: a slot would take the end of its program for a failure of that.
    _kill(os.killpg, process.pid)
    killed: set[int] = set()
    while found := {pid for pid in _pids() if _session(pid) == process.pid} - killed:
        for pid in found:
            _kill(os.kill, pid)
        # Again, for what these have started meanwhile.
        killed |= found


def _kill(how: Callable[[int, int], None], pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        how(pid, signal.SIGKILL)


def _session(pid: int) -> int:
    """The session that a process belongs to; 0 if we cannot know."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _pids() -> list[int]:
    """All processes of this machine that we can see."""
    if _prctl is not None:
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    try:
        done = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=False)  # noqa: S607
    except OSError:
        return []
    return [int(word) for word in done.stdout.split()]
