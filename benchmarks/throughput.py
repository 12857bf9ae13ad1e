"""Jobs per second of the engine and its contenders, interleaved in one run: ``python -m benchmarks.throughput``.

Speeds are ratios within one run: the machine's own speed drifts by more than what is compared. Every run has a fresh
directory, because creating files on ext4 where thousands were just deleted costs ten times more.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import contenders
from benchmarks.engine import Engine


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="also multiprocessing.Pool, as the original used it")
    parser.add_argument("--durability", default="slice", choices=("none", "slice", "file"))
    parser.add_argument("--dir", type=Path, help="where to write (default: beside this checkout)")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=options.dir or Path.cwd()))
    try:
        measure(base, options.jobs, options.rounds, every=options.all, durability=options.durability)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def measure(base: Path, jobs: int, rounds: int, *, every: bool, durability: str) -> None:
    """Measure ``rounds`` times in turn and print medians and ratios to the bare limit."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}; {jobs:,} jobs, 2 slots")
    engine_root = base / "engine"
    engine_root.mkdir()
    seconds: dict[str, list[float]] = {}
    with Engine(engine_root, DURABILITY=durability) as engine:
        runs: dict[str, Callable[[Path], float]] = {
            "two bare processes": lambda root: contenders.bare(root, jobs, durability=durability),
            "hpc-batch-sim": lambda _root: _engine_seconds(engine, jobs),
        }
        if every:
            runs["multiprocessing.Pool"] = lambda root: contenders.pool(root, jobs)
        for number in range(rounds):
            for name, run in runs.items():
                root = base / f"{number}-{len(seconds.get(name, []))}-{name.split()[0]}{len(name)}"
                root.mkdir()
                seconds.setdefault(name, []).append(run(root))
                print(f"  round {number + 1}: {name}: {jobs / seconds[name][-1]:,.0f} jobs/s", file=sys.stderr)
        rss = engine.rss_mb()
    _print(jobs, seconds, rss)


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _engine_seconds(engine: Engine, jobs: int) -> float:
    view = engine.run(jobs)
    assert view.ended
    assert view.started
    return view.ended - view.started


def _print(jobs: int, seconds: dict[str, list[float]], rss: dict[str, float]) -> None:
    limit = seconds["two bare processes"]
    print(f"{'':24}{'jobs/s':>10}{'of the limit':>14}")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(limit, values, strict=True))
        print(f"{name:24}{jobs / statistics.median(values):>10,.0f}{ratio:>14.2f}")
    print("peak memory, MB: " + ", ".join(f"{name} {value:.0f}" for name, value in rss.items()))


if __name__ == "__main__":
    main()
