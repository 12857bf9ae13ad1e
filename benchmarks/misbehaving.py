"""What bad jobs cost the good ones: ``python -m benchmarks.misbehaving``.

100,000 jobs of which 1 % raise, 0.1 % hang, 0.1 % eat memory and 0.1 % kill their process, beside as many that behave,
in turn. The time that the bad ones truly used is taken off: what they ran for, by the job table, and for each process
that died the time until its slot was back, which is measured alone. What is left is the good jobs' own. The last column
takes nothing off for the crashes.
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import frame
from benchmarks.engine import Engine
from common.batch import JobState
from common.ledger import Connection, table
from common.ledger.batches import BatchView
from common.ledger.table import record_dtype

BAD = {"raises": 0.01, "hangs": 0.001, "memory": 0.001, "kills": 0.001}
LIMITS = {"time_limit_seconds": 0.5, "memory_limit_mb": 64}
CHUNK_JOBS = 2**16


def main(arguments: list[str] | None = None) -> None:
    """Run and print."""
    parser = frame.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    frame.print_heading(f"{options.jobs:,} jobs, 2 slots, {options.rounds} rounds")
    rows, losses = [], []
    with frame.workspace(options.dir) as base:
        for number in range(options.rounds):
            good = _run(base / f"good-{number}", options.jobs, {})
            bad = _run(base / f"bad-{number}", options.jobs, BAD)
            restarts = _restart_seconds(base / f"kills-{number}") * bad.crashes
            loss, strict = _loss(good, bad, restarts), _loss(good, bad, 0.0)
            losses.append(loss)
            numbers = (good.seconds, bad.seconds, bad.bad_seconds, bad.crashes, restarts)
            rows.append([f"{number + 1}", *(f"{value:.1f}" for value in numbers), f"{loss:+.1%}", f"{strict:+.1%}"])
            print(f"  {bad.states}", file=sys.stderr, flush=True)
    columns = (
        "round",
        "all good, s",
        "with bad, s",
        "in bad jobs, slot-s",
        "crashes",
        "restarts, slot-s",
        "loss of the good",
        "with the crashes",
    )
    frame.print_table(columns, rows)
    print(f"median loss of the good jobs' throughput: {statistics.median(losses):+.1%}")


def _loss(good: "Outcome", bad: "Outcome", restarts: float) -> float:
    """What part of their throughput the good jobs lose; two slots share the bad jobs' time."""
    own = bad.seconds - (bad.bad_seconds + restarts) / 2
    return 1 - (good.seconds / good.completed) / (own / bad.completed)


@dataclass(frozen=True)
class Outcome:
    """What one batch came to; ``bad_seconds`` in jobs that did not complete and whose process lived."""

    seconds: float
    completed: int
    crashes: int
    bad_seconds: float
    states: str


def _run(root: Path, jobs: int, parameters: dict[str, float]) -> Outcome:
    root.mkdir()
    with Engine(root) as engine:
        view = engine.run(jobs, simulation="faulty", parameters=parameters, **LIMITS)
        assert view.ended
        assert view.started
        return Outcome(
            seconds=view.ended - view.started,
            completed=view.counters[JobState.COMPLETED],
            crashes=view.crashes,
            bad_seconds=_bad_seconds(engine.connection, view),
            states=", ".join(f"{count} {state.name}" for state, count in view.counters.items() if count),
        )


def _bad_seconds(connection: Connection, view: BatchView) -> float:
    total = 0.0
    for first in range(1, view.spec.jobs + 1, CHUNK_JOBS):
        count = min(CHUNK_JOBS, view.spec.jobs - first + 1)
        records = table.page(connection, view.spec.id, first, count, record_dtype(view.spec.outputs))
        total += float(np.sum(records["elapsed"][records["state"] != JobState.COMPLETED]))
    return total


def _restart_seconds(root: Path) -> float:
    """Seconds that one slot loses with each process that dies: one slot, and jobs that do nothing else."""
    root.mkdir()
    with Engine(root, slots=1) as engine:
        view = engine.run(20, simulation="faulty", parameters={"kills": 1.0})
        assert view.ended
        assert view.started
        return (view.ended - view.started) / view.crashes


if __name__ == "__main__":
    main()
