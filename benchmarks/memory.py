"""Peak memory of each part as batches grow: ``python -m benchmarks.memory [--jobs 100000,1000000] [--big]``.

Each size has a fresh system with one worker of two slots and the API, whose pages are read at random places while the
batch runs. "running" is a slot's peak before the last job ended; "with results" after one of the slots has written
results.csv and results.parquet, for which it loads Arrow.
"""

import random
import sys
import time
import urllib.request
from pathlib import Path

from batchsim.client import Client
from benchmarks import frame
from benchmarks.engine import Engine
from common.ledger import batches

BIG_JOBS = 10_000_000
PAGE_JOBS = 1000
COLUMNS = ("jobs", "API", "slot, running", "with results", "worker main", "Redis", "its data", "bytes a job")
_PAUSE_SECONDS = 0.1


def main(arguments: list[str] | None = None) -> None:
    """Run and print a table."""
    parser = frame.parser(__doc__)
    parser.add_argument("--jobs", type=frame.numbers, default=[100_000, 1_000_000], help="default: 100000,1000000")
    parser.add_argument("--big", action="store_true", help=f"also {BIG_JOBS:,} jobs, and as many files")
    options = parser.parse_args(arguments)
    sizes = [*options.jobs, *([BIG_JOBS] if options.big else [])]
    frame.print_heading("2 slots; peaks in MB")
    rows = []
    for jobs in sizes:
        with frame.workspace(options.dir) as base:
            frame.require_space(base, jobs)
            rows.append([f"{jobs:,}", *measure(base, jobs)])
        said = ", ".join(f"{name} {cell}" for name, cell in zip(COLUMNS, rows[-1], strict=True))
        print(f"  {said}", file=sys.stderr, flush=True)
    frame.print_table(COLUMNS, rows)


def measure(root: Path, jobs: int) -> list[str]:
    """One batch from submit to its results files; returns the cells of its row."""
    with Engine(root, warm_up=False) as engine:
        address = engine.serve()
        before = engine.connection.redis.info("memory")["used_memory"]
        batch = Client(address).submit(jobs, 42)["id"]
        running = read_while_it_runs(engine, address, batch)
        # The last page, with every record of it in the table.
        _get(f"{address}/batches/{batch}/jobs?offset={max(0, jobs - PAGE_JOBS)}&limit={PAGE_JOBS}")
        engine.wait_finished(batch)
        memory = engine.connection.redis.info("memory")
        peaks, used = engine.peaks(), memory["used_memory_peak"]
        shown = [engine.api_peak_mb(), running, peaks["slot"], peaks["main"], peaks["redis"], used / 2**20]
        return [*(f"{value:.0f}" for value in shown), f"{(memory['used_memory'] - before) / jobs:.0f}"]


def read_while_it_runs(engine: Engine, address: str, batch: int) -> float:
    """GET the batch and pages of it until it has ended; returns the largest slot's peak before that, MB."""
    place, peak = random.Random(batch), engine.peaks()["slot"]
    while True:
        view = batches.view(engine.connection, batch)
        if view.ended:
            return peak
        peak = engine.peaks()["slot"]
        _get(f"{address}/batches/{batch}")
        offset = place.randrange(view.spec.jobs)
        _get(f"{address}/batches/{batch}/jobs?offset={offset}&limit={PAGE_JOBS}")
        time.sleep(_PAUSE_SECONDS)


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=30) as response:
        response.read()


if __name__ == "__main__":
    main()
