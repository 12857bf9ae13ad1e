"""Progress on the terminal: a live bar, or plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable
from typing import Self

from common.ledger.batches import BatchView

PLAIN_SECONDS = 2.0


class Bar:
    """A live bar on a terminal: done of total, rate, time left. Lines that are shown go above it."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
        )
        self._task = self._progress.add_task("jobs", total=total, rate="")
        self._begin = time.monotonic()

    def show(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, highlight=False)

    def update(self, view: BatchView) -> None:
        """Move the bar."""
        seconds = max(time.monotonic() - self._begin, 1e-9)
        self._progress.update(self._task, completed=view.done, rate=f"{view.done / seconds:,.0f} jobs/s")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()


class Lines:
    """A line every two seconds, for logs and pipes."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._begin = self._last = clock()

    def show(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal

    def update(self, view: BatchView) -> None:
        """Print where the batch stands, if it is time."""
        now = self._clock()
        if now - self._last < PLAIN_SECONDS or not view.done:
            return
        self._last = now
        rate = view.done / (now - self._begin)
        left = (self._total - view.done) / rate
        self.show(f"{view.done}/{self._total} jobs, {rate:,.0f} jobs/s, {left:,.0f} s left")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        return


def make_progress(total: int) -> Bar | Lines:
    """What suits standard error."""
    return Bar(total) if sys.stderr.isatty() else Lines(total)
