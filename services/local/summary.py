"""What ``batchsim run`` says of its batch at the end: how its jobs ended, what they estimate, and where the files are.

The estimates are those of ``summary.json`` and ``points.csv``, which are written by then.
"""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common import outputs
from common.batch import JobState
from common.intervals import CONFIDENCE, MOST_POINTS_SHOWN, half_width, plus_minus
from common.ledger.batches import BatchView
from common.wording import rule_text, state_text


def print_summary(
    console: Console, view: BatchView, place: Path, *, slots: int, wall_seconds: float, kept: int = 0
) -> None:
    """Print it; of a sweep the first points, too. ``kept`` jobs were done by an earlier run."""
    assert view.ended
    spec = view.spec
    seconds = max(view.ended - (view.started or view.created), 1e-6)
    if kept:
        # Where the ledger outlived the earlier run, it began with that.
        seconds = min(seconds, wall_seconds)
    state = state_text(view.state, succeeded=view.succeeded)
    table = Table(show_header=False, title=f"Batch {spec.id}: {state}", title_justify="left")
    for job, count in view.counters.items():
        if count:
            table.add_row(f"jobs {job.name}", f"{count:,}")
    if not spec.sweep:
        for name, said in _estimates(place).items():
            others = f", {said['non_finite']:,} not finite" if said.get("non_finite") else ""
            none = "" if said["n"] else ", n 0"
            table.add_row(f"mean of {name}", _interval(said, CONFIDENCE) + none + others)
    not_run = view.counters[JobState.ABORTED] + view.counters[JobState.CANCELLED]
    if spec.until:
        table.add_row("stop rule", Text(rule_text(spec.until, needless=view.needless, not_run=not_run)))
    table.add_row("wall time", f"{wall_seconds:.2f} s, jobs {seconds:.2f} s")
    table.add_row("speed", f"{(view.done - not_run - kept) / seconds:,.0f} jobs/s on {slots} slots")
    table.add_row("seed", str(spec.seed))
    table.add_row("files", Text(", ".join(_files(view, place))))
    if spec.program and (place / "logs").is_dir():
        table.add_row("logs", Text(f"{place}/logs/"))
    console.print(table)
    if spec.sweep and spec.outputs:
        _print_points(console, view, place)


def _estimates(place: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((place / outputs.SUMMARY_NAME).read_text(encoding="utf-8"))["outputs"]
    return found


def _interval(said: dict[str, Any], confidence: float | None = None) -> str:
    """From ``summary.json``, or from a row of ``points.csv``, where numbers are text; what is not known is empty."""
    mean, low, high = (
        None if said.get(name) in (None, "") else float(said[name]) for name in ("mean", "ci_low", "ci_high")
    )
    return plus_minus(mean, half_width(low, high), confidence)


def _files(view: BatchView, place: Path) -> list[str]:
    spec, completed = view.spec, view.counters[JobState.COMPLETED]
    found = []
    if completed and spec.output_mode == "packed":
        found.append(f"packed/ with {completed:,} CSVs")
    elif completed:
        some = "" if completed == spec.jobs else f" ({completed:,} of them)"
        found.append(f"job_1.csv … job_{spec.jobs}.csv{some}" if spec.jobs > 1 else "job_1.csv")
    found += ["results.csv", "results.parquet"]
    found += ["points.csv"] if spec.sweep and spec.outputs else []
    found += [outputs.ERRORS_NAME] if (place / outputs.ERRORS_NAME).exists() else []
    return [f"{place}/{found[0]}", *found[1:]]


def _print_points(console: Console, view: BatchView, place: Path) -> None:
    """The first points of ``points.csv``: parameters, jobs that gave a number, and each output's mean."""
    with (place / "points.csv").open(encoding="utf-8", newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), MOST_POINTS_SHOWN + 1))
    more = len(rows) > MOST_POINTS_SHOWN
    caption = f"The first {MOST_POINTS_SHOWN} points; all are in {place}/points.csv" if more else None
    table = Table(title="Estimates by point (95 %)", title_justify="left", caption=caption, caption_justify="left")
    first = f"{view.spec.outputs[0]}_count"
    names = list(itertools.takewhile(lambda name: name != first, rows[0]))
    for name in [*names, "jobs", *view.spec.outputs]:
        table.add_column(Text(name), justify="right")
    for row in rows[:MOST_POINTS_SHOWN]:
        means = [
            _interval({part: row[f"{name}_{part}"] for part in ("mean", "ci_low", "ci_high")})
            for name in view.spec.outputs
        ]
        table.add_row(*(Text(row[name]) for name in names), row[first], *means)
    console.print(table)
