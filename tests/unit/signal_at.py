"""A signal at an instruction of one's choice."""

import os
import signal
import sys
from collections.abc import Callable
from types import CodeType, FrameType


class signal_at:  # noqa: N801 - a context
    """Send this process a signal before one of the instructions of certain functions, counted from 0 as they run.

    ``sent`` tells whether so many ran.
    """

    def __init__(self, number: signal.Signals, instruction: int, chosen: Callable[[CodeType], bool]) -> None:
        self.sent = False
        self._number, self._left, self._chosen = number, instruction, chosen

    def __enter__(self) -> "signal_at":
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, _event: str, _argument: object) -> Callable[..., object] | None:
        if not self._chosen(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, _frame: FrameType, event: str, _argument: object) -> Callable[..., object]:
        if event == "opcode":
            self._left -= 1
            if self._left == -1:
                self.sent = True
                os.kill(os.getpid(), self._number)
        return self._step
