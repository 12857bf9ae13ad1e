"""Write a batch's results files once its last job has ended: streaming, in memory that does not grow with the batch.

Only the quantiles in ``summary.json`` need an output's values at once, 8 bytes a job, one output after the other.

Whoever is suspended at it may wake when another has finished the batch, and its jobs have been made to run again. So
all goes through a directory of its own within the staging directory, which is gone by then: nothing of what it had read
reaches the batch's files. It also asks before each step, which is all that guards the index of packed outputs, and the
ledger takes the end only of what has not run since.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from common import outputs, packed_index, results, samples
from common.batch import FAILED_STATES, BatchSpec, JobState, Reason
from common.estimates import estimate, plain
from common.ledger import Connection, batches, finishing, workers
from common.ledger.batches import BatchView
from common.ledger.table import page, record_dtype
from common.statistics import Moments, collect
from common.suspicion import Inspection
from services.worker.points import Swept, has_points, swept, write_points

CHUNK_JOBS = 2**16
# Where a finisher works, with its name behind it.
FINISH_PREFIX = ".finish-"
# Renewed with every chunk of rows, so a dead writer is replaced after this time.
CLAIM_SECONDS = 10.0
# A batch of more jobs has no quantiles in its summary.
MOST_JOBS_AT_ONCE = 2**25


class _Superseded(Exception):
    """Another writes the results files, or they would not be those of the batch as it is now."""


class _Claim:
    """The right to write a batch's results files, as it had ended in ``view``; for some seconds at a time."""

    def __init__(self, connection: Connection, view: BatchView, name: str) -> None:
        self._connection = connection
        self._view = view
        self._name = name
        #: What is made on the way lies under this name.
        self.directory = f"{FINISH_PREFIX}{name.replace('/', '-')}"

    def renew(self) -> None:
        """Take it, or keep it for longer. Raises :class:`_Superseded`."""
        batch_id = self._view.spec.id
        if not finishing.claim(self._connection, batch_id, self._name, seconds=CLAIM_SECONDS):
            raise _Superseded
        now = batches.view(self._connection, batch_id)
        if now.finished or now.ended != self._view.ended:
            raise _Superseded

    def give_up(self) -> None:
        """Whoever tries next need not wait until it runs out."""
        finishing.unclaim(self._connection, self._view.spec.id, self._name)


def finish(connection: Connection, root: Path, batch_id: int, name: str) -> bool:
    """Write the results files: what :data:`common.outputs.RESULT_TYPES` lists, and ``summary.json`` last of them.

    False when another process does it, or did, or the batch has been requeued meanwhile.

    Raises OSError when the volume refuses; the housekeeper has it tried again.
    """
    view = batches.view(connection, batch_id)
    if view.finished or not view.ended:
        return False
    claim = _Claim(connection, view, name)
    try:
        claim.renew()
        warnings, found = _write(connection, root, view, claim)
        if finishing.finished(connection, batch_id, view.ended, warnings, found):
            return True
    except _Superseded:
        pass
    except OSError:
        if not _is_over(claim):
            raise
    claim.give_up()
    return False


def _is_over(claim: _Claim) -> bool:
    """Whether the volume refused because another has finished meanwhile, and removed what we worked in."""
    try:
        claim.renew()
    except _Superseded:
        return True
    claim.give_up()
    return False


def _write(connection: Connection, root: Path, view: BatchView, claim: _Claim) -> tuple[list[str], dict[str, Moments]]:
    """Write all files; returns warnings and statistics."""
    batch_id = view.spec.id
    place = outputs.locate(root, view.spec)
    # In the staging directory, if it is still there: once the files of a batch are moved away, nothing new comes.
    staged = place / f".staging-{batch_id}"
    work = (staged if staged.is_dir() else place) / claim.directory
    work.mkdir(exist_ok=True)
    inspection = Inspection(view)
    found = _write_tables(connection, view, work, claim, inspection)
    warnings = inspection.texts()
    summary = _summary(view) | {"outputs": _outputs(connection, view, found, claim), "warnings": warnings}
    outputs.write_synced(work / outputs.SUMMARY_NAME, json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n")
    failed = _write_errors(connection, view, work / outputs.ERRORS_NAME)
    claim.renew()
    for file in (
        "results.csv",
        "results.parquet",
        *(["points.csv"] if has_points(view.spec) else []),
        *([outputs.ERRORS_NAME] if failed else []),
    ):
        (work / file).rename(place / file)
    if not failed:
        # They may be those of an earlier end.
        _move(place / outputs.ERRORS_NAME, work)
    if view.spec.output_mode == "packed":
        completed = _completed(connection, view)
        claim.renew()
        packed_index.write_index(place, view.spec.jobs, completed, check=claim.renew)
    elif view.counters[JobState.COMPLETED] < view.spec.jobs:
        _remove_strays(connection, view, place, work, claim)
    outputs.publish(work / outputs.SUMMARY_NAME, place / outputs.SUMMARY_NAME)
    for left in (work, *place.glob(f"{FINISH_PREFIX}*")):
        # Also what somebody left who died at it.
        shutil.rmtree(left, ignore_errors=True)
    # It may be that of slots that run jobs again.
    claim.renew()
    outputs.remove_staging(root, view.spec)
    return warnings, found


def _write_tables(
    connection: Connection, view: BatchView, work: Path, claim: _Claim, inspection: Inspection
) -> dict[str, Moments]:
    found: dict[str, Moments] = {}
    parameters = swept(view.spec)
    schema, plain = _schema(view.spec, parameters), pa.csv.WriteOptions(quoting_style="needed")
    with (
        pa.csv.CSVWriter(work / "results.csv", schema, write_options=plain) as as_csv,
        pa.parquet.ParquetWriter(work / "results.parquet", schema) as as_parquet,
    ):
        for first, records in _chunks(connection, view.spec):
            claim.renew()
            names = workers.slot_names(connection)
            rows = pa.table(_columns(view, first, records, names, parameters), schema=schema)
            as_csv.write_table(rows)
            as_parquet.write_table(rows)
            good = records[records["state"] == JobState.COMPLETED]
            collect(found, good, view.spec.outputs)
            inspection.add_records(good)
    if has_points(view.spec):
        write_points(connection, view.spec, work / "points.csv", parameters, inspection, claim.renew)
    elif not view.spec.sweep:
        inspection.add_moments(found, view.counters[JobState.COMPLETED])
    return found


def _write_errors(connection: Connection, view: BatchView, path: Path) -> bool:
    """Write what is known of why jobs failed, in their order; False when there is nothing to write."""
    found = batches.failures(connection, view.spec.id)
    failed = sum(view.counters[state] for state in FAILED_STATES)
    texts = [f"Job {view.spec.id}_{index}\n{text.strip()}\n" for index, text in sorted(found.items())]
    if failed > len(found) > 0:
        texts.append(f"Of {failed:,} failed jobs these {len(found):,} have an error text that was kept.\n")
    if texts:
        path.write_text("\n".join(texts), encoding="utf-8", errors="replace")
    return bool(texts)


def _completed(connection: Connection, view: BatchView) -> np.ndarray:
    """For each job whether it completed."""
    parts = [records["state"] == JobState.COMPLETED for _, records in _chunks(connection, view.spec)]
    return np.concatenate(parts)


def _remove_strays(connection: Connection, view: BatchView, place: Path, work: Path, claim: _Claim) -> None:
    """Remove the CSVs that slots wrote and could not commit, because the jobs were cancelled or given up meanwhile.

    They are moved to where all of our own is removed: if that is gone, they may be of jobs that have run since.
    """
    present = results.open_store(place, view.spec).present(view.spec.jobs)
    for first, records in _chunks(connection, view.spec):
        stray = present[first - 1 : first - 1 + len(records)] & (records["state"] != JobState.COMPLETED)
        claim.renew()
        for position in np.flatnonzero(stray):
            _move(place / outputs.job_name(first + int(position)), work)


def _move(file: Path, work: Path) -> None:
    try:
        file.rename(work / file.name)
    except FileNotFoundError:
        # Gone already; or it is our directory that is.
        if not work.is_dir():
            raise


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
        *(records[name] for name in ("started", "elapsed", "cpu")),
        # Of a short program only the slot's own peak is known; 0 stands for that, and for what did not run.
        pa.array(records["max_rss"], mask=records["max_rss"] == 0),
        *(records[name] for name in ("exit", "signal")),
        reasons[records["reason"]],
        *(values.at(points) for values in parameters.values()),
        *(np.where(codes == JobState.COMPLETED, records[f"out:{name}"], np.nan) for name in view.spec.outputs),
    ]
    return [column if isinstance(column, pa.Array) else pa.array(column) for column in columns]


def _outputs(connection: Connection, view: BatchView, found: dict[str, Moments], claim: _Claim) -> dict[str, Any]:
    """Each output's moments, and, as NumPy says of the whole column, its estimates."""
    said: dict[str, Any] = {}
    for output in view.spec.outputs if view.counters[JobState.COMPLETED] else ():
        claim.renew()
        # Of an output that never was finite there are none.
        values = found.get(output)
        moments = values._asdict() if values else dict.fromkeys(Moments._fields) | {"n": 0}
        said[output] = {name: plain(value) for name, value in moments.items()}
        if view.spec.jobs > MOST_JOBS_AT_ONCE:
            said[output]["standard_deviation"] = plain(values.standard_deviation) if values else None
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
