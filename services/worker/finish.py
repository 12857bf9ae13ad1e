"""Write a batch's results files once its last job has ended: streaming, in memory that does not grow with the batch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from common import outputs, packed_index, results
from common.batch import BatchSpec, JobState, Reason
from common.ledger import Connection, batches, workers
from common.ledger.batches import BatchView
from common.ledger.table import page, record_dtype
from common.statistics import Moments, collect
from common.sweep import Sweep, all_points

CHUNK_JOBS = 2**16
# Renewed with every chunk of rows, so a dead writer is replaced after this time.
CLAIM_SECONDS = 10.0


def finish(connection: Connection, root: Path, batch_id: int, name: str) -> bool:
    """Write ``results.csv``, ``results.parquet`` and, last, ``summary.json``; False when another process does it.

    Raises OSError when the volume refuses; the housekeeper has it tried again.
    """
    view = batches.view(connection, batch_id)
    if view.finished or not view.ended or not batches.claim_finish(connection, batch_id, name, seconds=CLAIM_SECONDS):
        return False
    try:
        _write(connection, root, view, name)
    except OSError:
        # Whoever tries next need not wait until our claim runs out.
        batches.unclaim_finish(connection, batch_id, name)
        raise
    return batches.finished(connection, batch_id)


def _write(connection: Connection, root: Path, view: BatchView, name: str) -> None:
    batch_id = view.spec.id
    place = outputs.locate(root, view.spec)
    # In the staging directory, if it is still there: once the files of a batch are moved away, nothing new comes.
    staged = place / f".staging-{batch_id}"
    work = staged if staged.is_dir() else place
    found = _write_tables(connection, view, work, name)
    summary = json.dumps(_summary(view, found), indent=2) + "\n"
    for file in ("results.csv", "results.parquet"):
        (work / f".{file}.tmp").rename(place / file)
    if view.spec.output_mode == "packed":
        packed_index.write_index(place, view.spec.jobs, _completed(connection, view))
    elif view.counters[JobState.COMPLETED] < view.spec.jobs:
        _remove_strays(connection, view, place)
    outputs.write_synced(place / outputs.SUMMARY_NAME, summary.encode())
    outputs.remove_staging(root, view.spec)


def _write_tables(connection: Connection, view: BatchView, work: Path, name: str) -> dict[str, Moments]:
    found: dict[str, Moments] = {}
    schema, plain = _schema(view.spec), pa.csv.WriteOptions(quoting_style="needed")
    with (
        pa.csv.CSVWriter(work / ".results.csv.tmp", schema, write_options=plain) as as_csv,
        pa.parquet.ParquetWriter(work / ".results.parquet.tmp", schema) as as_parquet,
    ):
        for first, records in _chunks(connection, view.spec):
            batches.claim_finish(connection, view.spec.id, name, seconds=CLAIM_SECONDS)
            rows = _rows(view, first, records, workers.slot_names(connection))
            as_csv.write_table(rows)
            as_parquet.write_table(rows)
            good = records[records["state"] == JobState.COMPLETED]
            collect(found, good, view.spec.outputs)
    return found


def _completed(connection: Connection, view: BatchView) -> np.ndarray:
    """For each job whether it completed."""
    parts = [records["state"] == JobState.COMPLETED for _, records in _chunks(connection, view.spec)]
    return np.concatenate(parts)


def _remove_strays(connection: Connection, view: BatchView, place: Path) -> None:
    """Remove the CSVs that slots wrote and could not commit, because the jobs were cancelled or given up meanwhile."""
    present = results.open_store(place, view.spec).present(view.spec.jobs)
    for first, records in _chunks(connection, view.spec):
        stray = present[first - 1 : first - 1 + len(records)] & (records["state"] != JobState.COMPLETED)
        for position in np.flatnonzero(stray):
            (place / outputs.job_name(first + int(position))).unlink(missing_ok=True)


def _chunks(connection: Connection, spec: BatchSpec) -> Iterator[tuple[int, np.ndarray]]:
    dtype = record_dtype(spec.outputs)
    for first in range(1, spec.jobs + 1, CHUNK_JOBS):
        yield first, page(connection, spec.id, first, min(CHUNK_JOBS, spec.jobs - first + 1), dtype)


def _schema(spec: BatchSpec) -> Any:
    fields = [("index", pa.int64()), ("seed", pa.int64()), ("state", pa.string()), ("attempt", pa.uint8())]
    fields += [("worker", pa.string()), ("started", pa.float64()), ("elapsed", pa.float32()), ("cpu", pa.float32())]
    fields += [("max_rss_kb", pa.uint32()), ("exit", pa.int16()), ("signal", pa.uint8())]
    fields += [("reason", pa.string())]
    swept = _swept(spec)
    fields += [(name, pa.array(values[:1]).type) for name, values in swept.items()]
    return pa.schema(fields + [(name, pa.float64()) for name in spec.outputs])


def _swept(spec: BatchSpec) -> dict[str, list[Any]]:
    """Each swept parameter's value at every point; of a mixture of types, as text."""
    if not spec.sweep:
        return {}
    sweep = Sweep.from_dict(spec.sweep)
    points = all_points(sweep)
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point.get(name) for point in points]
        kinds = {type(value) for value in values}
        if kinds <= {int, float}:
            found[name] = [float(value or 0) for value in values] if float in kinds else values
        else:
            found[name] = values if kinds <= {bool} else ["" if value is None else str(value) for value in values]
    return found


def _rows(view: BatchView, first: int, records: np.ndarray, slots: dict[int, str]) -> Any:
    states = np.array([state.name for state in JobState])
    reasons = np.array([reason.name if reason else "" for reason in Reason])
    codes = records["state"]
    names = pa.array([slots.get(number, "") for number in range(max(slots, default=0) + 1)])
    columns: list[Any] = [
        np.arange(first, first + len(records)),
        np.full(len(records), view.spec.seed),
        states[codes],
        records["attempt"],
        names.take(pa.array(np.minimum(records["slot"], len(names) - 1))),
        *(records[name] for name in ("started", "elapsed", "cpu", "max_rss", "exit", "signal")),
        reasons[records["reason"]],
        *_parameters(view.spec, first, len(records)),
        *(np.where(codes == JobState.COMPLETED, records[f"out:{name}"], np.nan) for name in view.spec.outputs),
    ]
    return pa.table([pa.array(column) for column in columns], schema=_schema(view.spec))


def _parameters(spec: BatchSpec, first: int, count: int) -> Iterator[Any]:
    points = np.arange(first - 1, first - 1 + count) // int(spec.sweep.get("replications", 1))
    for values in _swept(spec).values():
        yield pa.array(values).take(pa.array(points))


def _summary(view: BatchView, found: dict[str, Moments]) -> dict[str, Any]:
    spec = view.spec
    return {
        "batch": spec.id,
        "simulation": spec.simulation,
        "jobs": spec.jobs,
        "seed": spec.seed,
        "state": view.state,
        "counters": {state.name: count for state, count in view.counters.items() if count},
        "created": view.created,
        "started": view.started,
        "ended": view.ended,
        "crashes": view.crashes,
        "outputs": {
            name: {**values._asdict(), "standard_deviation": values.standard_deviation if values.n > 1 else None}
            for name, values in found.items()
        },
    }
