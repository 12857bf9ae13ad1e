"""Signals that wait while a program is started or buried.

A mask of the kernel's alone does not do it. A mask is one thread's, and the kernel gives a process's signal to
whichever thread takes it, such as those that Arrow starts; Python calls the handler in the main thread all the same. So
those that interrupt a job wait here, in Python. A mask is left for those that end a process without asking Python.
"""

import signal

# What signal.pthread_sigmask puts around it costs several times as much as the call, four times a job.
from _signal import pthread_sigmask  # type: ignore[import-not-found, unused-ignore]
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
# Whether handlers waited, and which signals were masked.
Before = tuple[bool, set[signal.Signals]]

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Deferral:
    """Holds back SIGINT, SIGTERM, and the handlers that were made with :meth:`wrap`; used by the main thread."""

    __slots__ = ("_late", "_on")

    def __init__(self) -> None:
        self._on = False
        self._late: list[tuple[Handler, int]] = []

    def wrap(self, handler: Handler) -> Handler:
        """A handler that calls this one, though not before the deferral's end."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self._on:
                self._late.append((handler, number))
            else:
                handler(number, frame)

        return handle

    def begin(self) -> Before:
        """Let signals wait. Returns what was before, for :meth:`end`; raises what the handlers of earlier ones do."""
        on = self._on
        if not on:
            # What an exception left of an earlier deferral was not for this job.
            self._late.clear()
        try:
            self._on = True
            return on, pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        except BaseException:
            self._on = on
            raise

    def end(self, before: Before) -> None:
        """Handle the signals that came, unless they waited before, too; raises what their handlers raise."""
        on, masked = before
        try:
            pthread_sigmask(signal.SIG_SETMASK, masked)
        finally:
            self._on = on
            self._catch_up()

    def _catch_up(self) -> None:
        while self._late and not self._on:
            handler, number = self._late.pop(0)
            try:
                handler(number, None)
            finally:
                # Also when that one raised: what stays would be taken for the next job's.
                self._catch_up()


#: That of this process.
deferral = Deferral()
