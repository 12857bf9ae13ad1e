"""Write a batch's results files once its last job has ended: streaming, in memory that does not grow with the batch.

Only the quantiles in ``summary.json`` need an output's values at once, 8 bytes a job, one output after the other.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from common import outputs, packed_index, results, samples
from common.batch import BatchSpec, JobState, Reason
from common.estimates import estimate
from common.ledger import Connection, batches, workers
from common.ledger.batches import BatchView
from common.ledger.table import page, record_dtype
from common.statistics import Moments, collect
from common.suspicion import Inspection
from services.worker.points import Swept, has_points, swept, write_points

CHUNK_JOBS = 2**16
# Renewed with every chunk of rows, so a dead writer is replaced after this time.
CLAIM_SECONDS = 10.0
# A batch of more jobs has no quantiles in its summary.
MOST_JOBS_AT_ONCE = 2**25


def finish(connection: Connection, root: Path, batch_id: int, name: str) -> bool:
    """Write ``results.csv``, ``results.parquet``, of a sweep ``points.csv``, and, last, ``summary.json``.

    False when another process does it.

    Raises OSError when the volume refuses; the housekeeper has it tried again.
    """
    view = batches.view(connection, batch_id)
    if view.finished or not view.ended or not batches.claim_finish(connection, batch_id, name, seconds=CLAIM_SECONDS):
        return False
    try:
        warnings = _write(connection, root, view, name)
    except OSError:
        # Whoever tries next need not wait until our claim runs out.
        batches.unclaim_finish(connection, batch_id, name)
        raise
    return batches.finished(connection, batch_id, warnings)


def _write(connection: Connection, root: Path, view: BatchView, name: str) -> list[str]:
    batch_id = view.spec.id
    place = outputs.locate(root, view.spec)
    # In the staging directory, if it is still there: once the files of a batch are moved away, nothing new comes.
    staged = place / f".staging-{batch_id}"
    work = staged if staged.is_dir() else place
    inspection = Inspection(view)
    found = _write_tables(connection, view, work, name, inspection)
    warnings = inspection.texts()
    summary = _summary(view) | {"outputs": _outputs(connection, view, found, name), "warnings": warnings}
    for file in ("results.csv", "results.parquet", *(["points.csv"] if has_points(view.spec) else [])):
        (work / f".{file}.tmp").rename(place / file)
    if view.spec.output_mode == "packed":
        packed_index.write_index(place, view.spec.jobs, _completed(connection, view))
    elif view.counters[JobState.COMPLETED] < view.spec.jobs:
        _remove_strays(connection, view, place)
    outputs.write_synced(place / outputs.SUMMARY_NAME, json.dumps(summary, indent=2).encode() + b"\n")
    outputs.remove_staging(root, view.spec)
    return warnings


def _write_tables(
    connection: Connection, view: BatchView, work: Path, name: str, inspection: Inspection
) -> dict[str, Moments]:
    found: dict[str, Moments] = {}
    parameters = swept(view.spec)
    schema, plain = _schema(view.spec, parameters), pa.csv.WriteOptions(quoting_style="needed")

    def renew() -> None:
        batches.claim_finish(connection, view.spec.id, name, seconds=CLAIM_SECONDS)

    with (
        pa.csv.CSVWriter(work / ".results.csv.tmp", schema, write_options=plain) as as_csv,
        pa.parquet.ParquetWriter(work / ".results.parquet.tmp", schema) as as_parquet,
    ):
        for first, records in _chunks(connection, view.spec):
            renew()
            names = workers.slot_names(connection)
            rows = pa.table(_columns(view, first, records, names, parameters), schema=schema)
            as_csv.write_table(rows)
            as_parquet.write_table(rows)
            good = records[records["state"] == JobState.COMPLETED]
            collect(found, good, view.spec.outputs)
            inspection.add_records(good)
    if has_points(view.spec):
        write_points(connection, view.spec, work / ".points.csv.tmp", parameters, inspection, renew)
    elif not view.spec.sweep:
        inspection.add_moments(found, view.counters[JobState.COMPLETED])
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


def _schema(spec: BatchSpec, parameters: dict[str, Swept]) -> Any:
    fields = [("index", pa.int64()), ("seed", pa.int64()), ("state", pa.string()), ("attempt", pa.uint8())]
    fields += [("worker", pa.string()), ("started", pa.float64()), ("elapsed", pa.float32()), ("cpu", pa.float32())]
    fields += [("max_rss_kb", pa.uint32()), ("exit", pa.int16()), ("signal", pa.uint8())]
    fields += [("reason", pa.string())]
    fields += [(name, values.type) for name, values in parameters.items()]
    return pa.schema(fields + [(name, pa.float64()) for name in spec.outputs])


def _columns(
    view: BatchView, first: int, records: np.ndarray, slots: dict[int, str], parameters: dict[str, Swept]
) -> list[Any]:
    states = np.array([state.name for state in JobState])
    reasons = np.array([reason.name if reason else "" for reason in Reason])
    codes = records["state"]
    names = pa.array([slots.get(number, "") for number in range(max(slots, default=0) + 1)])
    points = np.arange(first - 1, first - 1 + len(records)) // int(view.spec.sweep.get("replications", 1))
    columns: list[Any] = [
        np.arange(first, first + len(records)),
        np.full(len(records), view.spec.seed),
        states[codes],
        records["attempt"],
        names.take(pa.array(np.minimum(records["slot"], len(names) - 1))),
        *(records[name] for name in ("started", "elapsed", "cpu", "max_rss", "exit", "signal")),
        reasons[records["reason"]],
        *(values.at(points) for values in parameters.values()),
        *(np.where(codes == JobState.COMPLETED, records[f"out:{name}"], np.nan) for name in view.spec.outputs),
    ]
    return [pa.array(column) for column in columns]


def _outputs(connection: Connection, view: BatchView, found: dict[str, Moments], name: str) -> dict[str, Any]:
    """Each output's moments, and, as NumPy says of the whole column, its estimates."""
    said: dict[str, Any] = {}
    for output, values in found.items():
        batches.claim_finish(connection, view.spec.id, name, seconds=CLAIM_SECONDS)
        said[output] = values._asdict()
        if view.spec.jobs > MOST_JOBS_AT_ONCE:
            said[output]["standard_deviation"] = values.standard_deviation
            continue
        column = samples.read(connection, view.spec, names=[output]).columns[output]
        said[output] |= estimate(column).to_dict()
    return said


def _summary(view: BatchView) -> dict[str, Any]:
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
    }
