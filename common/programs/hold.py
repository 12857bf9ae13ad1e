"""Signals that wait while a program is started or buried.

A mask of the kernel's alone does not do it. A mask is one thread's, and the kernel gives a process's signal to
whichever thread takes it, such as those that Arrow starts; Python calls the handler in the main thread all the same.
"""

from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


class Hold:
    """Holds back the handlers that were made with :meth:`wrap`. For the main thread, where Python calls handlers."""

    __slots__ = ("_late", "_on")

    def __init__(self) -> None:
        self._on = False
        self._late: list[tuple[Handler, int]] = []

    def wrap(self, handler: Handler) -> Handler:
        """A handler that calls this one, though not before the hold's end."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self._on:
                self._late.append((handler, number))
            else:
                handler(number, frame)

        return handle

    def begin(self) -> bool:
        """Let signals wait. Returns whether they did so before, for :meth:`end`."""
        before, self._on = self._on, True
        return before

    def end(self, before: bool = False) -> None:
        """Handle the signals that came, unless they have to wait on; raises what their handlers raise."""
        self._on = before
        while self._late and not self._on:
            handler, number = self._late.pop(0)
            try:
                handler(number, None)
            finally:
                # Also when that one raised: what stays would be taken for the next job's.
                self.end()


#: That of this process.
hold = Hold()
