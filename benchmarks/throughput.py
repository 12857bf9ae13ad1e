"""Jobs per second of the engine and its contenders, interleaved in one run: ``python -m benchmarks.throughput``.

Without ``--sizes``: 100,000 jobs (``--jobs``), the engine beside two bare processes. With ``--sizes``: several sizes,
and plain Celery too. ``--all`` adds multiprocessing.Pool, as the original program used it.

Speeds are ratios within one run: the machine's own speed drifts by more than what is compared. Every run has a fresh
directory, because creating files on ext4 where thousands were just deleted costs ten times more, and a fresh system,
warmed up, so that peak memory is of this run.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks import frame
from benchmarks.contenders import CHUNKS, ENGINE, LIMIT, PACKED, POOL, TASKS, Contender
from benchmarks.processes import TookTooLong
from benchmarks.system import Result

# What the cost of a job at the largest size is compared with.
BASE_JOBS = 10_000

# Results of (jobs, contender's name), by round; a round that took too long is missing.
Found = dict[tuple[int, str], dict[int, Result]]


def main(arguments: list[str] | None = None) -> None:
    """Run and print."""
    options = _parser().parse_args(arguments)
    sizes = options.sizes or [options.jobs]
    chosen = [
        LIMIT,
        ENGINE,
        *([PACKED] if options.packed else []),
        *([CHUNKS, TASKS] if options.sizes else []),
        *([POOL] if options.all else []),
    ]
    frame.print_heading(f"{' / '.join(f'{jobs:,}' for jobs in sizes)} jobs, 2 slots, {options.rounds} rounds")
    _print_left_out(chosen, max(sizes))
    with frame.workspace(options.dir) as base:
        files = sum(jobs * len(_at(chosen, jobs)) for jobs in sizes) * options.rounds
        frame.require_space(base, files)
        found = measure(base, chosen, sizes, options.rounds, options.durability)
    for jobs in sizes:
        print(f"\n{jobs:,} jobs")
        _print_speeds(found, _at(chosen, jobs), jobs)
    if len(sizes) > 1:
        print()
        _print_costs(found, chosen, sizes)


def _parser() -> argparse.ArgumentParser:
    parser = frame.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--sizes", type=frame.numbers, help="as 1000,10000,100000,1000000; with plain Celery")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="also multiprocessing.Pool, which syncs nothing")
    parser.add_argument("--packed", action="store_true", help="also the engine with packed outputs")
    parser.add_argument("--durability", default="slice", choices=("none", "slice", "file"))
    return parser


def _print_left_out(chosen: Sequence[Contender], largest: int) -> None:
    for contender in chosen:
        if contender.largest is not None and contender.largest < largest:
            print(f"{contender.name}: left out above {contender.largest:,} jobs, where it takes too long")
    if TASKS in chosen and POOL not in chosen:
        print(f"{POOL.name}: left out without --all: it neither syncs nor survives anything")


def _at(contenders: Sequence[Contender], jobs: int) -> list[Contender]:
    return [each for each in contenders if each.largest is None or jobs <= each.largest]


def measure(base: Path, contenders: Sequence[Contender], sizes: Sequence[int], rounds: int, durability: str) -> Found:
    """All contenders in turn at each size, ``rounds`` times."""
    found: Found = defaultdict(dict)
    for number in range(rounds):
        for jobs in sizes:
            here = _at(contenders, jobs)
            # Nobody is always the first, or always after the same one.
            turn = number % len(here)
            for place, contender in enumerate(here[turn:] + here[:turn]):
                root = base / f"{number}-{jobs}-{place}"
                root.mkdir()
                said = f"  round {number + 1}, {jobs:,} jobs: {contender.name}: "
                try:
                    result = contender.run(root, jobs, durability)
                except TookTooLong as error:
                    print(f"{said}{error}", file=sys.stderr, flush=True)
                    continue
                found[jobs, contender.name][number] = result
                print(f"{said}{jobs / result.seconds:,.0f} jobs/s", file=sys.stderr, flush=True)
    return found


def _print_speeds(found: Found, contenders: Sequence[Contender], jobs: int) -> None:
    limit = found[jobs, LIMIT.name]
    rows = []
    for contender in contenders:
        results = found[jobs, contender.name]
        if not results:
            rows.append([contender.name, *["-"] * 6])
            continue
        ratio = statistics.median(limit[number].seconds / result.seconds for number, result in results.items())
        sending = statistics.median(result.sending for result in results.values())
        speed = jobs / _median_seconds(results)
        shown = f"{sending:.2f}" if sending else ""
        rows.append([contender.name, f"{speed:,.0f}", f"{ratio:.2f}", shown, *_peaks(results)])
    columns = ("", "jobs/s", "of the limit", "sending, s", "peak MB: slot", "main", "Redis")
    frame.print_table(columns, rows)


def _peaks(results: dict[int, Result]) -> list[str]:
    parts = [[result.peaks_mb.get(part, 0.0) for result in results.values()] for part in ("slot", "main", "redis")]
    return [f"{max(values):.0f}" if any(values) else "" for values in parts]


def _print_costs(found: Found, contenders: Sequence[Contender], sizes: Sequence[int]) -> None:
    """What a job costs at the largest size that the contender was run with, against the same at 10,000."""
    base = BASE_JOBS if BASE_JOBS in sizes else min(sizes)
    rows = []
    for contender in contenders:
        largest = max((jobs for jobs in sizes if found[jobs, contender.name]), default=0)
        if largest <= base or not found[base, contender.name]:
            continue
        costs = [_median_seconds(found[jobs, contender.name]) / jobs * 1e6 for jobs in (base, largest)]
        rows.append(
            [contender.name, f"{costs[0]:.1f}", f"{largest:,}", f"{costs[1]:.1f}", f"{costs[1] / costs[0]:.2f}"]
        )
    frame.print_table(("µs a job", f"at {base:,}", "largest size", "there", "ratio"), rows)


def _median_seconds(results: dict[int, Result]) -> float:
    return statistics.median(result.seconds for result in results.values())


if __name__ == "__main__":
    main()
