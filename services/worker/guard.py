"""The limits of a job, inside the slot that runs it: time, memory, and being told to stop.

What the guard cannot stop, because a job catches everything or is deep in foreign code, the worker's main process
kills.
"""

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from common.programs.deferral import deferral
from common.programs.memory import own_kb

T = TypeVar("T")


class TimeLimitReached(BaseException):
    """The job has run for longer than it may. No Exception, so that no ``except Exception`` of a job swallows it."""


class Interrupted(BaseException):
    """The job is not ours any more: cancelled, or offered to another."""


@dataclass(frozen=True)
class Limits:
    """What a job may do; 0 is no limit."""

    time_seconds: float = 0.0
    memory_mb: int = 0
    retries: int = 0
    retry_delay_seconds: float = 1.0


class Guard:
    """Runs jobs under limits, one at a time."""

    def __init__(self) -> None:
        self._armed = False

    def install(self) -> None:
        """Take SIGALRM (time limit) and SIGUSR1 (stop) of this process."""
        signal.signal(signal.SIGALRM, deferral.wrap(self._on_alarm))
        signal.signal(signal.SIGUSR1, deferral.wrap(self._on_interrupt))

    def run(self, function: Callable[[int, int], T], index: int, attempt: int, seconds: float) -> T:
        """Call ``function(index, attempt)``. Raises :class:`TimeLimitReached` after ``seconds``, if not 0, and
        :class:`Interrupted` when the main process says so.
        """  # noqa: D205 - one sentence
        try:
            try:
                self._armed = True
                if seconds:
                    signal.setitimer(signal.ITIMER_REAL, seconds)
                return function(index, attempt)
            finally:
                # A signal from here on finds nothing to interrupt; one that comes before this has disarmed us itself.
                self._armed = False
        finally:
            # Also when that one was raised instead of the line above: the next job may have no limit to set anew.
            if seconds:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, _number: int, _frame: Any) -> None:
        if self._armed:
            self._armed = False
            raise TimeLimitReached

    def _on_interrupt(self, _number: int, _frame: Any) -> None:
        if self._armed:
            self._armed = False
            raise Interrupted


@contextmanager
def memory_limit(megabytes: int) -> Iterator[None]:
    """Let this process take at most so much more memory than it has now; a job that wants more gets a MemoryError.

    Linux only: elsewhere RLIMIT_DATA does not count what malloc maps.
    """
    if not megabytes or not sys.platform.startswith("linux"):
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = (own_kb().data + megabytes * 1024) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


class Limited:
    """Runs each job under limits that ``tell`` is told of: seconds, and to how many kB of resident memory it may grow.

    The memory limit begins with what the process has by then, so what an earlier job has left behind, in a cache or a
    global variable, is not held against the next one. Whoever is told has to know, too, that the job is over: what is
    done with its results then may take long on a slow volume.
    """

    def __init__(self, guard: Guard, megabytes: int, tell: Callable[[float, int], None]) -> None:
        self._run = guard.run
        self._megabytes = megabytes
        self._tell = tell

    def run(self, function: Callable[[int, int], T], index: int, attempt: int, seconds: float) -> T:
        """As :meth:`Guard.run`; a job that wants more memory gets a MemoryError."""
        self._tell(seconds, own_kb().resident + self._megabytes * 1024 if self._megabytes else 0)
        try:
            if not self._megabytes:
                # For a short job, which entering the other would make longer by a tenth.
                return self._run(function, index, attempt, seconds)
            with memory_limit(self._megabytes):
                return self._run(function, index, attempt, seconds)
        finally:
            self._tell(0.0, 0)
