"""Progress on the terminal: a live bar, or plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from common.ledger.batches import BatchView

PLAIN_SECONDS = 2.0
# Nothing was done for so many times the average, and for so long: the time that is left is not known.
MOST_STEPS_SILENT = 5
LEAST_SILENCE_SECONDS = 3.0
# From here on a time is read more easily as hours and minutes.
LEAST_AS_CLOCK_SECONDS = 600.0


class Pace:
    """How fast a batch goes, and when it would be through; times are those of ``clock``.

    Results come in steps: what slots have done is seen when they commit it.
    """

    def __init__(self, total: int, begin: float) -> None:
        self._total = total
        self._begin = self._moved = self._now = begin
        self._done = self._kept = self._steps = 0

    def keep(self, done: int) -> None:
        """So many were done before the begin."""
        self._done = self._kept = done

    def update(self, done: int, now: float) -> None:
        """So many jobs are done at this time."""
        self._now = now
        if done != self._done:
            self._done, self._moved = done, now
            self._steps += 1

    @property
    def rate(self) -> float:
        """Jobs a second since the begin."""
        return (self._done - self._kept) / max(self._now - self._begin, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds until all are done, at this rate; None while nobody can say.

        That is before the first one, and when nothing was done for several times as long as it took on average: then
        something hangs, and the average says nothing of it.
        """
        if not self._steps:
            return None
        usual = (self._moved - self._begin) / self._steps
        if self._now - self._moved > max(LEAST_SILENCE_SECONDS, MOST_STEPS_SILENT * usual):
            return None
        return (self._total - self._done) / self.rate


class Bar:
    """A live bar on a terminal: done of total, rate, time left. Lines that are shown go above it."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        self._task = self._progress.add_task("jobs", total=total, rate="", left="")
        self._clock = clock
        self._pace = Pace(total, clock())

    def show(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, highlight=False)

    def keep(self, done: int) -> None:
        """So many jobs were done before: they count as done, and not for the rate."""
        self._pace.keep(done)

    def update(self, view: BatchView) -> None:
        """Move the bar."""
        self._pace.update(view.done, self._clock())
        left = _left_text(self._pace)
        self._progress.update(self._task, completed=view.done, rate=f"{self._pace.rate:,.0f} jobs/s", left=left)

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
        self._last = clock()
        self._pace = Pace(total, self._last)

    def show(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal

    def keep(self, done: int) -> None:
        """So many jobs were done before: they count as done, and not for the rate."""
        self._pace.keep(done)

    def update(self, view: BatchView) -> None:
        """Print where the batch stands, if it is time."""
        now = self._clock()
        self._pace.update(view.done, now)
        if now - self._last < PLAIN_SECONDS or not view.done:
            return
        self._last = now
        self.show(f"{view.done}/{self._total} jobs, {self._pace.rate:,.0f} jobs/s, {_left_text(self._pace)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        return


def _left_text(pace: Pace) -> str:
    if pace.left is None:
        return "time left unknown"
    clock = pace.left >= LEAST_AS_CLOCK_SECONDS
    return f"{timedelta(seconds=round(pace.left)) if clock else f'{pace.left:,.0f} s'} left"


def make_progress(total: int) -> Bar | Lines:
    """What suits standard error."""
    return Bar(total) if sys.stderr.isatty() else Lines(total)
