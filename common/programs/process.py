"""Start a program, read what it prints, and see it end, with all that it started.

``posix_spawn`` rather than ``subprocess``, which costs several times as much. The program leads a process group of its
own, so that what it leaves behind can be found and killed; what took a session of its own is left alone. Its group is
told to a :class:`Watch`, because nobody but us ends it: when we are killed, whoever sees that must kill the group. Two
cases are left: a worker's main process that is killed at once with its slots, outside of a container, leaves their
programs running; and so does a slot that is killed between the start of a program and the telling. (The kernel ends a
child with its parent only if the child itself asks for it.)
"""

import contextlib
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from common.programs.deferral import deferral
from common.programs.launcher import Launcher
from common.programs.memory import limit, limited, status_kb
from common.programs.streams import Stream

# A program that is told to stop has so long to do it.
GRACE_SECONDS = 0.5
# First and longest pause between two looks at the memory of a program that is silent; and, where the kernel does not
# tell us of a program's end, between two questions.
_LOOK_SECONDS = (0.005, 0.5)
_ASK_SECONDS = (0.0005, 0.02)
# Read after a program's end: both pipes may be full, and a pipe holds 1 MiB at most.
_MOST_IN_PIPES = 2 * 2**20
_READ_BYTES = 2**16
# Wait status, CPU seconds and peak memory, kB.
_Exit = tuple[int, float, int]
# Somebody else has taken the exit code: as if it were 255.
_UNKNOWN_EXIT: _Exit = (255 << 8, 0.0, 0)
# getrusage gives bytes on macOS and kB elsewhere.
_RSS_PER_KB = 1024 if sys.platform == "darwin" else 1
_UNLIMITED = contextlib.nullcontext()
# A new process's peak begins with that of the one which started it, of which the kernel's counts are some MB off.
_PEAK_SLACK_KB = 4096


class Watch(Protocol):
    """Who is told of the program that runs, and can kill it when we cannot."""

    def program_began(self, pid: int, limit_kb: int) -> None:
        """Process group ``pid`` runs, and may take ``limit_kb`` of memory; 0 is no limit."""

    def program_ended(self) -> bool:
        """It is over; whether it was killed for its memory."""


class Unwatched:
    """Nobody is told."""

    def program_began(self, pid: int, limit_kb: int) -> None:
        """Nothing to do."""

    def program_ended(self) -> bool:
        """Nobody has killed it."""
        return False


@dataclass(frozen=True)
class Ended:
    """How a program ended. ``code`` is its exit code, or minus the signal that killed it."""

    code: int
    cpu_seconds: float
    #: The most memory that it had; 0 where that is not known, because it was short and smaller than we are.
    peak_kb: int
    killed_for_memory: bool


class Process:
    """A program that runs. Its end must be seen to with :meth:`bury`."""

    def __init__(self, pid: int, streams: Mapping[int, Stream]) -> None:
        self._pid = pid
        self._streams = dict(streams)
        self._exit: _Exit | None = None
        self._over = False
        self._peak_kb = 0
        self._poll = select.poll()
        self._pidfd = _open_pid(pid)
        self._listening = False
        if self._pidfd is not None:
            self._poll.register(self._pidfd, select.POLLIN)

    def follow(self, seconds: float | None = None) -> None:
        """Read what it prints until it has ended, or has printed too much, or ``seconds`` are over."""
        deadline = None if seconds is None else time.monotonic() + seconds
        look, longest = _LOOK_SECONDS if self._pidfd is not None else _ASK_SECONDS
        if self._pidfd is not None and not self._listening:
            # What a short program prints waits in the pipe: one wake-up instead of three.
            self._over = bool(self._poll.poll(look * 1000))
        if not self._over:
            self._listen()
        while not self._over:
            left = look if deadline is None else min(look, max(0.0, deadline - time.monotonic()))
            events = self._poll.poll(left * 1000)
            for descriptor, event in events:
                if descriptor == self._pidfd:
                    self._over = True
                elif self._read(descriptor, event).too_much and deadline is None:
                    return
            if not events or self._pidfd is None:
                self._look()
            if not events:
                look = min(2 * look, longest)
                if deadline is not None and time.monotonic() >= deadline:
                    return

    def stop(self) -> None:
        """Ask it to end, and give it a moment to do so."""
        if not self._over:
            _kill(self._pid, signal.SIGTERM)
            self.follow(GRACE_SECONDS)

    def bury(self, watch: Watch) -> Ended:
        """Kill it and what is left of its group, read what still stands in the pipes, and take its exit code."""
        # First: until we take the exit code, its number cannot be another's.
        _kill(self._pid, signal.SIGKILL, over=self._over)
        killed = watch.program_ended()
        status, cpu, peak = self._exit or _take_exit(self._pid) or _UNKNOWN_EXIT
        self._drain()
        if peak > _own_peak_kb():
            # Ours may have grown since we looked.
            _own_peak_kb.cache_clear()
        peak = peak if peak > _own_peak_kb() + _PEAK_SLACK_KB else self._peak_kb
        return Ended(os.waitstatus_to_exitcode(status), cpu, peak, killed)

    def close(self) -> None:
        """Give back what tells of its end."""
        if self._pidfd is not None:
            os.close(self._pidfd)

    def _look(self) -> None:
        """What no descriptor tells: its memory, and where there are no such for processes, whether it has ended."""
        self._peak_kb = max(self._peak_kb, status_kb(self._pid, "VmHWM"))
        if self._pidfd is None:
            # Interrupted in between, we would forget what the kernel says only once.
            before = deferral.begin()
            self._exit = _take_exit(self._pid, os.WNOHANG)
            self._over = self._exit is not None
            deferral.end(before)

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            for descriptor in self._streams:
                self._poll.register(descriptor, select.POLLIN)

    def _read(self, descriptor: int, event: int = select.POLLIN) -> Stream:
        """Read once. Without a writer, what fills less than we take is the rest."""
        stream = self._streams[descriptor]
        data = os.read(descriptor, _READ_BYTES) if event & select.POLLIN else b""
        stream.add(data)
        if not data or (event & select.POLLHUP and len(data) < _READ_BYTES):
            self._poll.unregister(descriptor)
            del self._streams[descriptor]
        return stream

    def _drain(self) -> None:
        if self._pidfd is not None:
            self._poll.unregister(self._pidfd)
        self._listen()
        # Who has left the group may hold a pipe, and write for ever.
        for _ in range(_MOST_IN_PIPES // _READ_BYTES):
            events = self._poll.poll(0) if self._streams else []
            if not events:
                return
            for descriptor, event in events:
                self._read(descriptor, event)


@cache
def _own_peak_kb() -> int:
    """The most memory that this process has had; it can only have grown since."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _RSS_PER_KB


def run(
    launcher: Launcher,
    path: str,
    words: list[bytes],
    variables: Mapping[bytes, bytes],
    *,
    out: Stream,
    err: Stream,
    limit_kb: int = 0,
    watch: Watch,
) -> Ended:
    """Run a program to its end. A stream that has :attr:`Stream.too_much` tells that it was killed for that.

    Whatever a signal handler raises meanwhile is raised again when the program and its group are gone. Raises OSError
    or ValueError when it cannot be started.
    """
    # So that no program is forgotten that has begun.
    before = deferral.begin()
    pipes: list[int] = []
    try:
        pipes += os.pipe()
        pipes += os.pipe()
        with limited(limit_kb) if limit_kb else _UNLIMITED:
            pid = launcher.start(path, words, variables, pipes[1], pipes[3])
        if limit_kb:
            limit(pid, limit_kb)
        watch.program_began(pid, limit_kb)
        os.close(pipes.pop(3))
        os.close(pipes.pop(1))
        process = Process(pid, {pipes[0]: out, pipes[1]: err})
        try:
            deferral.end(before)
            process.follow()
            deferral.begin()
        except BaseException:
            deferral.begin()
            process.stop()
            raise
        finally:
            ended = process.bury(watch)
            process.close()
        return ended
    finally:
        for descriptor in pipes:
            os.close(descriptor)
        # Last: what has waited may raise here.
        deferral.end(before)


def end_group(pid: int) -> None:
    """Kill the program of a slot that is dead. A number that has gone over to somebody else meanwhile is left alone."""
    with contextlib.suppress(ProcessLookupError):
        # A group's leader cannot leave its session, which was the slot's and is ours.
        if os.getsid(pid) != os.getsid(0):
            return
    _kill(pid, signal.SIGKILL)


def _kill(pid: int, number: signal.Signals, *, over: bool = False) -> None:
    """Send a signal to a group, and to its leader unless that is over: it may have gone into another group."""
    # PermissionError: it runs as somebody else now.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
    if not over:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _open_pid(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _take_exit(pid: int, flags: int = 0) -> _Exit | None:
    """Wait for a program's end; None while it runs, if ``flags`` say not to wait."""
    try:
        found, status, used = os.wait4(pid, flags)
    except ChildProcessError:
        return _UNKNOWN_EXIT
    return (status, used.ru_utime + used.ru_stime, used.ru_maxrss // _RSS_PER_KB) if found else None
