"""How long nothing happens after a fault: from when the part is back until the next commit, or the end."""

import time
from typing import NamedTuple


class Progress(NamedTuple):
    """What the ledger says of the batches that were submitted: jobs that have ended, and whether all is finished."""

    done: int
    finished: bool


class Recovery:
    """A stopwatch that is started by faults and stopped by progress."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._since: float | None = None
        self._least: int | None = None

    def start(self) -> None:
        """The part is back. What an earlier fault stopped and this one found still standing counts from here."""
        self._since, self._least = time.monotonic(), None

    def look(self, progress: Progress | None) -> None:
        """Note what the ledger says now; None when it cannot be asked or knows the batches no more."""
        if self._since is None:
            return
        if progress is None:
            self._least = None
        elif progress.finished or (self._least is not None and progress.done > self._least):
            self.longest = max(self.longest, time.monotonic() - self._since)
            self._since = None
        else:
            self._least = progress.done
