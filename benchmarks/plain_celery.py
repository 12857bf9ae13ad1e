"""Celery without the engine: ``python -m benchmarks.plain_celery [--jobs 1000,10000]``.

The same jobs, files and Redis, a prefork worker with two processes, JSON, no results, all else Celery's default: one
task a job (``task.delay``), and 100 jobs a message (``task.chunks``). The time is that from the first send to the last
job's file, which is what a user waits for; how long the sending took is shown beside it.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import frame
from benchmarks.celery_app import BROKER_VARIABLE, TASK, make_app
from benchmarks.processes import TookTooLong, time_limit
from benchmarks.system import Result, System, python
from common import outputs
from common.batch import BatchSpec

CHUNK_JOBS = 100
LIMIT_SECONDS = 180.0
WORKER = "celery"
_BATCH, _WARM_UP = 1, 2
_WARM_UP_JOBS = 64


class PlainCelery(System):
    """A private Redis and one Celery worker with ``slots`` processes."""

    def __init__(self, root: Path, slots: int = 2, durability: str = "slice") -> None:
        super().__init__(root)
        self._slots = slots
        self._durability = durability

    def begin(self) -> None:
        """Start them, and run a few jobs, so that nothing is done for the first time."""
        super().begin()
        broker = self.url.replace("unix://", "redis+socket://", 1)
        app = make_app(broker)
        self._task: Any = app.tasks[TASK]
        options = ("--concurrency", str(self._slots), "--loglevel", "WARNING")
        command = python("-m", "celery", "--app", "benchmarks.celery_app", "worker", *options)
        self.start(WORKER, command, DURABILITY=self._durability, **{BROKER_VARIABLE: broker})
        try:
            with time_limit(LIMIT_SECONDS, "Celery's start"):
                self._run(_WARM_UP, _WARM_UP_JOBS, self.send_tasks)
        except TookTooLong:
            self._explain()
            raise

    def send_tasks(self, batch: int, jobs: int) -> None:
        """One message a job."""
        for index in range(1, jobs + 1):
            self._task.delay(batch, index)

    def send_chunks(self, batch: int, jobs: int) -> None:
        """One message for each ``CHUNK_JOBS`` jobs."""
        self._task.chunks(((batch, index) for index in range(1, jobs + 1)), CHUNK_JOBS).apply_async()

    def measure(self, jobs: int, send: Callable[[int, int], None], limit: float = LIMIT_SECONDS) -> Result:
        """Run the jobs. Raises :class:`TookTooLong`, after printing what the worker said."""
        try:
            with time_limit(limit, f"{jobs:,} jobs on plain Celery"):
                sending, seconds = self._run(_BATCH, jobs, send)
        except TookTooLong:
            self._explain()
            raise
        return Result(seconds, self.peaks_mb(WORKER), sending)

    def _run(self, batch: int, jobs: int, send: Callable[[int, int], None]) -> tuple[float, float]:
        outputs.prepare(self.root, BatchSpec(batch, jobs, 42))
        begin = time.time()
        send(batch, jobs)
        sending = time.time() - begin
        return sending, _last_file(self.root / str(batch), jobs) - begin

    def _explain(self) -> None:
        print(f"The worker's log:\n{self.log(WORKER)}", file=sys.stderr, flush=True)
        print(f"{self.connection.command('LLEN', 'celery')} messages are queued", file=sys.stderr, flush=True)


def _last_file(place: Path, jobs: int) -> float:
    """When the last of the jobs' files was written; waits until all are there."""
    missing = jobs
    while missing:
        if (place / outputs.job_name(missing)).exists():
            missing -= 1
        else:
            time.sleep(0.01)
    with os.scandir(place) as entries:
        return max(entry.stat().st_mtime for entry in entries if outputs.JOB_NAME.fullmatch(entry.name))


def tasks(root: Path, jobs: int, durability: str = "slice") -> Result:
    """One task a job."""
    with PlainCelery(root, durability=durability) as celery:
        return celery.measure(jobs, celery.send_tasks)


def chunks(root: Path, jobs: int, durability: str = "slice") -> Result:
    """Chunks of 100 jobs."""
    with PlainCelery(root, durability=durability) as celery:
        return celery.measure(jobs, celery.send_chunks)


def main(arguments: list[str] | None = None) -> None:
    """Run and print a table."""
    parser = frame.parser(__doc__)
    parser.add_argument("--jobs", type=frame.numbers, default=[1000, 10_000], help="sizes (default: 1000,10000)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    frame.print_heading(f"2 slots, median of {options.rounds}")
    rows = []
    with frame.workspace(options.dir) as base:
        for jobs in options.jobs:
            for name, run in (("Celery, one task a job", tasks), ("Celery chunks", chunks)):
                found = []
                for number in range(options.rounds):
                    root = base / f"{run.__name__}-{jobs}-{number}"
                    root.mkdir()
                    found.append(run(root, jobs))
                rows.append(_row(name, jobs, found))
    frame.print_table(
        ("", "jobs", "sending, s", "to the last file, s", "jobs/s", "slot, MB", "main, MB", "Redis, MB"), rows
    )


def _row(name: str, jobs: int, found: list[Result]) -> list[str]:
    seconds = statistics.median(result.seconds for result in found)
    sending = statistics.median(result.sending for result in found)
    peaks = [f"{max(result.peaks_mb[part] for result in found):.0f}" for part in ("slot", "main", "redis")]
    return [name, f"{jobs:,}", f"{sending:.2f}", f"{seconds:.2f}", f"{jobs / seconds:,.0f}", *peaks]


if __name__ == "__main__":
    main()
