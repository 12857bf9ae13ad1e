"""Look for violated promises: compare ledger, job table, counters, statistics and files; and run jobs again.

:func:`audit` holds what the system says of a batch against everything else that it says of it. :func:`verify` holds it
against the simulation itself. Neither changes anything.
"""

import csv
import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from common import outputs, results
from common.batch import BatchSpec, JobState
from common.jobs import Jobs
from common.ledger import Connection, batches, ranges, table
from common.ledger.batches import BatchView
from common.ledger.table import record_dtype
from common.statistics import Moments, collect
from common.wording import jobs_text

CHUNK_JOBS = 2**16
# Sums in another order differ in their last digits; statistics that differ more have counted something else.
RELATIVE_TOLERANCE = 1e-9
MOST_NAMED = 20


def audit(connection: Connection, root: Path, batch_id: int, *, files: bool = True) -> list[str]:
    """Every violated promise of a batch, as a sentence; an empty list when there is none.

    While a batch runs its state moves between two looks, so only an ended one gives a dependable answer. With ``files``
    every CSV's numbers are compared with its record, which takes about 50 µs a job.
    """
    view = batches.view(connection, batch_id)
    found: list[str] = []
    seen: Counter[JobState] = Counter()
    statistics: dict[str, Moments] = {}
    store = results.open_store(outputs.locate(root, view.spec), view.spec, checked=True)
    for first, records in chunks(connection, view.spec):
        seen.update({JobState(int(code)): int(count) for code, count in zip(*_unique(records), strict=True)})
        good = records[records["state"] == JobState.COMPLETED]
        collect(statistics, good, view.spec.outputs)
        if files:
            found += _file_problems(store, view.spec, first, records)
    if found:
        found += store.damage()
    found += _counter_problems(view, seen)
    found += _statistics_problems(batches.statistics(connection, batch_id, view.spec.outputs), statistics)
    found += _range_problems(connection, view)
    found += _end_problems(root, view)
    return found


def verify(root: Path, spec: BatchSpec, *, sample: int = 100, seed: int | None = None) -> list[str]:
    """Run a random sample of a batch's completed jobs again and compare bytes; returns what differs."""
    return compare(outputs.locate(root, spec), spec, sample=sample, seed=seed)[1]


def compare(place: Path, spec: BatchSpec, *, sample: int, seed: int | None = None) -> tuple[int, list[str]]:
    """As :func:`verify`, of the CSVs in ``place``; returns how many jobs were run again, and what differs.

    What is not in ``place`` is not looked at: see :func:`missing`.
    Raises :class:`common.errors.InvalidInput` when what the batch ran is not there, or is another version.
    """
    store, jobs = results.open_store(place, spec), Jobs(replace(spec, job_seconds=0.0))
    # Only what completed: running a job again that failed, hung or killed its process would do so here.
    present = (np.flatnonzero(store.present(spec.jobs)) + 1).tolist()
    chosen = random.Random(seed).sample(present, min(sample, len(present)))  # noqa: S311 - no secret
    again, differing = 0, []
    with closing(jobs):
        for index in sorted(chosen):
            data = store.read(index)
            again += 1
            try:
                same = data == jobs.result(index, attempt=2)[0]
            except Exception as error:  # noqa: BLE001 - a simulation's failure, not ours
                differing.append(f"Job {spec.id}_{index} completed, and fails now: {_last_line(error)}")
                continue
            if not same:
                differing.append(f"Job {spec.id}_{index} gives other bytes than its CSV in {place} holds.")
    return again, differing


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def missing(place: Path, spec: BatchSpec) -> tuple[int, list[str]]:
    """How many completed jobs have no CSV in ``place``, and which, in sentences; by the results files.

    While there are none, before the batch has ended, nothing is known to be missing.
    """
    completed = _completed(place / outputs.RESULTS_NAME, spec.jobs)
    # The count alone says less than the index, which knows what was packed and never committed.
    store = results.open_store(place, spec, checked=completed is not None)
    present = store.present(spec.jobs)
    if completed is None:
        count = _summed_up(place / outputs.SUMMARY_NAME) - int(present.sum())
        said = f"{jobs_text(count)} completed and {_have(count)} no CSV in {place}."
        return (count, [said]) if count > 0 else (0, [])
    gone = (np.flatnonzero(completed & ~present) + 1).tolist()
    if not gone:
        return 0, []
    names = ", ".join(f"{spec.id}_{index}" for index in gone[:MOST_NAMED])
    more = " …" if len(gone) > MOST_NAMED else ""
    return len(gone), [
        f"{jobs_text(len(gone))} completed and {_have(len(gone))} no CSV in {place}: {names}{more}",
        *store.damage(),
    ]


def _completed(path: Path, jobs: int) -> np.ndarray | None:
    """For each job whether ``results.csv`` says that it completed; None when that is not there, or says nothing."""
    found = np.zeros(jobs, dtype=bool)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[int(row["index"]) - 1] = row["state"] == JobState.COMPLETED.name
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error):
        return None
    return found


def _summed_up(path: Path) -> int:
    """How many jobs completed by the summary; 0 when that is not there."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["counters"].get("COMPLETED", 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def chunks(connection: Connection, spec: BatchSpec) -> Iterator[tuple[int, np.ndarray]]:
    """The batch's job table in pieces: (first index, records)."""
    dtype = record_dtype(spec.outputs)
    for first in range(1, spec.jobs + 1, CHUNK_JOBS):
        yield first, table.page(connection, spec.id, first, min(CHUNK_JOBS, spec.jobs - first + 1), dtype)


def _unique(records: np.ndarray) -> tuple[list[int], list[int]]:
    codes, counts = np.unique(records["state"], return_counts=True)
    return codes.tolist(), counts.tolist()


def _counter_problems(view: BatchView, seen: Counter[JobState]) -> Iterator[str]:
    total = sum(view.counters.values())
    if total != view.spec.jobs or min(view.counters.values()) < 0:
        yield f"The counters add up to {total} jobs, but the batch has {view.spec.jobs}: {view.counters}."
    for state in JobState:
        if state.terminal and state is not JobState.CANCELLED and seen[state] != view.counters[state]:
            yield f"{view.counters[state]} jobs are counted as {state.name}, but {seen[state]} records say so."
    never = view.counters[JobState.PENDING] + view.counters[JobState.RUNNING] + view.counters[JobState.CANCELLED]
    if seen[JobState.PENDING] + seen[JobState.CANCELLED] != never:
        yield f"{never} jobs have not run by the counters, {seen[JobState.PENDING]} by the records."


def _statistics_problems(said: dict[str, Moments], seen: dict[str, Moments]) -> Iterator[str]:
    if said.keys() != seen.keys():
        yield f"There are statistics of {sorted(said)}, but records of {sorted(seen)}."
    for name in said.keys() & seen.keys():
        for field, one, other in zip(Moments._fields, said[name], seen[name], strict=True):
            if not math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9):
                yield f"The {field} of {name} is {one} in the statistics and {other} in the records."


def _range_problems(connection: Connection, view: BatchView) -> Iterator[str]:
    """The open ranges cover exactly the jobs without a record, each once."""
    open_jobs = view.counters[JobState.PENDING] + view.counters[JobState.RUNNING]
    spans = sorted((ticket.first, ticket.count) for ticket in ranges.open_ranges(connection, view.spec.id))
    if sum(count for _, count in spans) != open_jobs:
        yield f"{open_jobs} jobs are open, but the ranges that wait or are leased have {sum(c for _, c in spans)}."
    for first, count in spans:
        if first < 1 or first + count - 1 > view.spec.jobs:
            yield f"The open range {first} … {first + count - 1} is outside of the batch's {view.spec.jobs} jobs."
    for (first, count), (following, _) in pairwise(spans):
        if first + count > following:
            yield f"Jobs {following} … {first + count - 1} are in two ranges."
    dtype = record_dtype(view.spec.outputs)
    for first, count in spans:
        pieces = range(first, first + count, CHUNK_JOBS)
        states = (
            table.read(connection, view.spec.id, start, min(CHUNK_JOBS, first + count - start), dtype)["state"]
            for start in pieces
        )
        if any((piece != JobState.PENDING).any() for piece in states):
            yield f"The open range {first} … {first + count - 1} has jobs that have ended."


def _end_problems(root: Path, view: BatchView) -> Iterator[str]:
    open_jobs = view.counters[JobState.PENDING] + view.counters[JobState.RUNNING]
    if bool(view.ended) != (open_jobs == 0):
        yield f"Batch {view.spec.id} has {open_jobs} open jobs, and its end is {view.ended}."
    place = outputs.locate(root, view.spec)
    if view.finished and not (place / outputs.SUMMARY_NAME).exists():
        yield f"Batch {view.spec.id} is finished, but {place / outputs.SUMMARY_NAME} is missing."
    if view.finished and (place / f".staging-{view.spec.id}").exists():
        yield f"Batch {view.spec.id} is finished, but its staging directory is still there."


def _file_problems(store: results.Store, spec: BatchSpec, first: int, records: np.ndarray) -> Iterator[str]:
    for index, record in enumerate(records, first):
        data = store.read(index)
        if record["state"] == JobState.COMPLETED:
            yield from _row_problems(spec, index, data, record)
        # A packed result that could not be committed stays in its segment, where nobody asks for it.
        elif record["state"] != JobState.PENDING and data is not None and spec.output_mode == "files":
            yield f"Job {spec.id}_{index} is {JobState(int(record['state'])).name}, but it has a CSV."


def _row_problems(spec: BatchSpec, index: int, data: bytes | None, record: np.void) -> Iterator[str]:
    name = f"The CSV of job {spec.id}_{index}"
    if data is None:
        yield f"{name} is missing."
        return
    row = results.parse(data)
    try:
        wrong = (
            []
            if row is None
            else [out for out in spec.outputs if not _same(float(row[out]), float(record[f"out:{out}"]))]
        )
    except (ValueError, KeyError, TypeError):
        row = None
    if row is None:
        yield f"{name} cannot be read: {data[:80]!r}."
        return
    for out in wrong:
        yield f"{name} says {out} = {row[out]}, its record says {record[f'out:{out}']}."


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
