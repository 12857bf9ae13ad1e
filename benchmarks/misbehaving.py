"""What bad jobs cost the good ones: ``python -m benchmarks.misbehaving --dir /dev/shm``.

100,000 jobs of which 1 % raise, 0.1 % hang, 0.1 % eat memory and 0.1 % kill their process, beside as many that behave,
in turn. The time that the bad ones truly used is taken off: what they ran for, by the job table, and for each process
that died the time in which its slot ran nothing, by the table and the batch's events. What is left is the good jobs'
own. The last column takes nothing off for the crashes.

In memory (``--dir /dev/shm``) the files' writing does not vary by more than what is measured, as it does on a disk.
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import frame
from benchmarks.engine import Engine
from common.batch import JobState
from common.ledger import Connection, control, table, workers
from common.ledger.batches import BatchView
from common.ledger.table import record_dtype

BAD = {"raises": 0.01, "hangs": 0.001, "memory": 0.001, "kills": 0.001}
LIMITS = {"time_limit_seconds": 0.5, "memory_limit_mb": 64}
SLOTS = 2


def main(arguments: list[str] | None = None) -> None:
    """Run and print."""
    parser = frame.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    frame.print_heading(f"{options.jobs:,} jobs, {SLOTS} slots, {options.rounds} rounds")
    rows, losses = [], []
    with frame.workspace(options.dir) as base:
        for number in range(options.rounds):
            good = _run(base / f"good-{number}", options.jobs, {})
            bad = _run(base / f"bad-{number}", options.jobs, BAD)
            loss, strict = _loss(good, bad, bad.crash_seconds), _loss(good, bad, 0.0)
            losses.append(loss)
            numbers = (good.seconds, bad.seconds, bad.bad_seconds, bad.crash_seconds)
            rows.append([f"{number + 1}", *(f"{value:.1f}" for value in numbers), f"{bad.crashes}"])
            rows[-1] += [f"{loss:+.1%}", f"{strict:+.1%}"]
            print(f"  {bad.states}", file=sys.stderr, flush=True)
    columns = ("round", "all good, s", "with bad, s", "in bad jobs, slot-s", "after crashes, slot-s", "crashes")
    frame.print_table((*columns, "loss of the good", "with the crashes"), rows)
    print(f"median loss of the good jobs' throughput: {statistics.median(losses):+.1%}")


@dataclass(frozen=True)
class Outcome:
    """What one batch came to. ``bad_seconds``: in jobs that did not complete and whose process lived;
    ``crash_seconds``: in which a slot ran nothing because its process had died. Both are sums over the slots.
    """  # noqa: D205 - one sentence

    seconds: float
    completed: int
    crashes: int
    bad_seconds: float
    crash_seconds: float
    states: str


def _loss(good: Outcome, bad: Outcome, crash_seconds: float) -> float:
    """What part of their throughput the good jobs lose; the slots share the bad jobs' time."""
    own = bad.seconds - (bad.bad_seconds + crash_seconds) / SLOTS
    return 1 - (good.seconds / good.completed) / (own / bad.completed)


def _run(root: Path, jobs: int, parameters: dict[str, float]) -> Outcome:
    root.mkdir()
    with Engine(root, slots=SLOTS) as engine:
        view = engine.run(jobs, simulation="faulty", parameters=parameters, **LIMITS)
        assert view.ended
        assert view.started
        records = table.page(engine.connection, view.spec.id, 1, jobs, record_dtype(view.spec.outputs))
        return Outcome(
            seconds=view.ended - view.started,
            completed=view.counters[JobState.COMPLETED],
            crashes=view.crashes,
            bad_seconds=float(np.sum(records["elapsed"][records["state"] != JobState.COMPLETED])),
            crash_seconds=_crash_seconds(engine.connection, view, records),
            states=", ".join(f"{count} {state.name}" for state, count in view.counters.items() if count),
        )


def _crash_seconds(connection: Connection, view: BatchView, records: np.ndarray) -> float:
    """The gaps between two jobs of a slot in which one of its processes died."""
    deaths = [event for event in control.events(connection, view.spec.id) if event["kind"] == "process died"]
    assert view.started
    assert view.ended
    names, total = workers.slot_names(connection), 0.0
    for slot in np.unique(records["slot"][records["started"] > 0]).tolist():
        mine = np.sort(records[(records["slot"] == slot) & (records["started"] > 0)], order="started")
        # The batch's own beginning and end are the edges of what is before the first job and after the last.
        starts = np.append(mine["started"], view.ended)
        ends = np.insert(mine["started"] + mine["elapsed"], 0, view.started)
        at = [event["at"] for event in deaths if event["who"] == names[slot]]
        # The death that ends the batch is noted a moment after its end.
        hit = np.unique(np.minimum(np.searchsorted(starts, at), len(starts) - 1))
        total += float(np.sum(np.maximum(0.0, starts[hit] - ends[hit])))
    return total


if __name__ == "__main__":
    main()
