"""SIGINT and SIGTERM end a command by an exception; not in the middle of an import, where it could be lost.

What a handler raises in a callback of a weak reference, or below compiled code that calls Python, is only printed, or
not even that, and the command goes on. Imports are full of both, and those of a command take a second.
"""

import signal
from types import FrameType

# So long after a signal that came during an import it is looked at again.
AGAIN_SECONDS = 0.02


class Interrupts:
    """Raises ``KeyboardInterrupt`` for SIGINT and ``terminated`` for the first SIGTERM.

    Takes SIGALRM for itself: a module that takes it, too, makes a signal that came during its import forgotten. Who
    presses Ctrl-C a second time during an import that hangs need not wait for its end.
    """

    def __init__(self, terminated: type[BaseException]) -> None:
        self._terminated = terminated
        self._waiting: set[int] = set()

    def install(self) -> None:
        """Take these signals, but for SIGINT where it is ignored, as in the background of a script."""
        signal.signal(signal.SIGALRM, self._again)
        signal.signal(signal.SIGTERM, self._handle)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if _imports(frame) and not (number == signal.SIGINT and number in self._waiting):
            self._waiting.add(number)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # A second signal while we stop changes nothing: stopping has its own time limit.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise self._terminated

    def _again(self, _number: int, _frame: FrameType | None) -> None:
        waiting, self._waiting = self._waiting, set()
        for number in sorted(waiting):
            # As a signal, because both are masked where an exception would do harm.
            signal.raise_signal(number)


def _imports(frame: FrameType | None) -> bool:
    """Whether this frame belongs to an import, or was called by one."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
