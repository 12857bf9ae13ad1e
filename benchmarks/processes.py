"""Processes as the kernel shows them, and waiting for what they do."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class TookTooLong(Exception):
    """A wait came to its limit. No TimeoutError: that is an OSError, and then kombu tries again."""


def peak_mb(pid: int) -> float:
    """Peak resident memory, MB; pages that are shared with the parent count. 0 when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    # A zombie has no such line.
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0")
    return int(line.split()[1]) / 1024


def children(pid: int) -> list[int]:
    """Its child processes."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float, what: str, *, poll: float = 0.01) -> None:
    """Return when it is so. Raises :class:`TookTooLong` that says what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        # Before the look: whoever stood still until now has not looked in vain.
        over = time.monotonic() > deadline
        if condition():
            return
        if over:
            raise TookTooLong(f"{what}: not within {seconds:g} s")
        time.sleep(poll)


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Interrupt whatever the block is at, also inside a library, with :class:`TookTooLong`. In the main thread only."""

    def end(_number: int, _frame: object) -> None:
        raise TookTooLong(f"{what}: not within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    # Again and again, in case a library swallows the first.
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
