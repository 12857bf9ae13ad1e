"""The results files of an ended batch: one row per job, equal to the table; its summary, and its errors."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from common import queue
from common.batch import BatchSpec, JobState
from common.control import Controller
from common.ledger import Connection, batches, control, finishing, keys, ranges
from common.ledger.table import read, record_dtype
from common.submission import Submitter
from services.worker import finish as finish_module
from services.worker.finish import finish
from tests.integration.finish_support import FAILED, JOBS, mixed_batch, rows, run
from tests.support import OUTPUTS, slice_of
from tests.support import finish as complete

CHUNK = 7


@pytest.fixture
def submitter(connection: Connection, redis_url: str, root: Path) -> Submitter:
    """Submits to the test's Redis and directory."""
    return Submitter(connection, queue.make_app(redis_url), root)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred jobs are many chunks."""
    monkeypatch.setattr(finish_module, "CHUNK_JOBS", CHUNK)


@pytest.fixture
def mixed(submitter: Submitter, connection: Connection) -> BatchSpec:
    """An ended batch with completed, failed and cancelled jobs."""
    return mixed_batch(submitter, connection)


def states(connection: Connection, spec: BatchSpec) -> Iterator[str]:
    """The states of the jobs of an ended batch, by their records."""
    for code in read(connection, spec.id, 1, spec.jobs, record_dtype(OUTPUTS))["state"].tolist():
        yield JobState(code).name if code else "CANCELLED"


def test_both_tables_have_one_row_per_job_as_the_ledger_says(
    connection: Connection, root: Path, mixed: BatchSpec
) -> None:
    """CSV and Parquet agree with the job table to the last digit, over many chunks, whatever became of the job."""
    assert finish(connection, root, mixed.id, "w")
    place = root / str(mixed.id)
    table = pq.read_table(place / "results.parquet").to_pydict()
    records = read(connection, mixed.id, 1, JOBS, record_dtype(OUTPUTS))
    wanted = list(states(connection, mixed))
    assert {name: wanted.count(name) for name in set(wanted)} == {"COMPLETED": 87, "FAILED": 3, "CANCELLED": 10}
    assert table["index"] == list(range(1, JOBS + 1))
    assert table["seed"] == [mixed.seed] * JOBS
    assert table["state"] == wanted
    for column, field in (("attempt", "attempt"), ("started", "started"), ("elapsed", "elapsed"), ("cpu", "cpu")):
        assert table[column] == records[field].tolist()
    assert table["max_rss_kb"] == [peak or None for peak in records["max_rss"].tolist()]
    good = [state == "COMPLETED" for state in wanted]
    for name in OUTPUTS:
        np.testing.assert_array_equal(table[name], np.where(good, records[f"out:{name}"], np.nan))
    assert {worker for worker, state in zip(table["worker"], wanted, strict=True) if state != "CANCELLED"} == {"w/0"}
    assert {worker for worker, state in zip(table["worker"], wanted, strict=True) if state == "CANCELLED"} == {""}
    as_csv = rows(place)
    assert list(as_csv[0]) == list(table)
    for number, row in enumerate(as_csv):
        assert (int(row["index"]), row["state"], row["worker"]) == (number + 1, wanted[number], table["worker"][number])
        assert row["max_rss_kb"] == ("" if wanted[number] == "CANCELLED" else "1000"), "what is not known is empty"
        for name in OUTPUTS:
            assert not good[number] or float(row[name]) == table[name][number]


def test_the_summary_is_what_numpy_says_of_the_column(connection: Connection, root: Path, mixed: BatchSpec) -> None:
    """Counters, times and moments; failed and cancelled jobs are in no moment; the file is strict JSON."""
    finish(connection, root, mixed.id, "w")
    place, view = root / str(mixed.id), batches.view(connection, mixed.id)
    text = (place / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert summary["counters"] == {"COMPLETED": 87, "FAILED": 3, "CANCELLED": 10}
    assert (summary["batch"], summary["jobs"], summary["seed"], summary["state"]) == (
        mixed.id,
        JOBS,
        mixed.seed,
        "FAILED",
    )
    assert (summary["created"], summary["ended"]) == (view.created, view.ended)
    table = pq.read_table(place / "results.parquet").to_pydict()
    for name in OUTPUTS:
        column = np.array(table[name])
        column = column[~np.isnan(column)]
        found = summary["outputs"][name]
        assert (found["n"], found["min"], found["max"]) == (87, column.min(), column.max())
        assert found["mean"] == pytest.approx(column.mean(), rel=1e-12)
        assert found["standard_deviation"] == pytest.approx(column.std(ddof=1), rel=1e-12)


def test_a_summary_of_an_output_that_is_never_finite(submitter: Submitter, connection: Connection, root: Path) -> None:
    """It is there, with how many values of it were not finite, beside the one that is."""
    spec = submitter.submit(3)
    lease, _ = ranges.claim(connection, (spec.id, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
    while lease is not None:
        work = slice_of(lease.first, [2.0] * lease.count)
        table = np.frombuffer(work.records, record_dtype(OUTPUTS)).copy()
        table["out:sum"] = np.nan
        work = replace(work, records=table.tobytes(), moments={"mean": work.moments["mean"]})
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1)
        lease, _ = ranges.claim(connection, (spec.id, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
    assert finish(connection, root, spec.id, "w")
    said = json.loads((root / str(spec.id) / "summary.json").read_text())["outputs"]
    assert list(said) == list(OUTPUTS)
    assert (said["sum"]["n"], said["sum"]["count"], said["sum"]["non_finite"], said["sum"]["mean"]) == (0, 0, 3, None)
    assert (said["mean"]["n"], said["mean"]["non_finite"]) == (3, 0)
    assert said["sum"].keys() == said["mean"].keys()


@pytest.mark.parametrize("done", [0, 1])
def test_a_summary_of_none_or_one_value(submitter: Submitter, connection: Connection, root: Path, done: int) -> None:
    """Without values there are no moments, of one value no deviation; the JSON has no NaN."""
    spec = submitter.submit(2)
    run(connection, spec.id, most=done)
    control.cancel(connection, spec.id)
    assert finish(connection, root, spec.id, "w")
    text = (root / str(spec.id) / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [found["standard_deviation"] for found in summary["outputs"].values()] == [None] * (2 * done)
    assert [row["state"] for row in rows(root / str(spec.id))].count("CANCELLED") == 2 - done


def test_afterwards_nothing_is_left_over(connection: Connection, root: Path, mixed: BatchSpec) -> None:
    """The staging directory and all temporary names are gone; the ledger says when it was finished."""
    assert finishing.awaited(connection) == [mixed.id]
    finish(connection, root, mixed.id, "w")
    left = {path.name for path in (root / str(mixed.id)).iterdir()}
    assert left == {"batch.json", "errors.txt", "results.csv", "results.parquet", "summary.json"}
    assert finishing.awaited(connection) == []
    assert batches.view(connection, mixed.id).finished


def test_the_errors_whole(connection: Connection, root: Path, mixed: BatchSpec) -> None:
    """Each failed job's text, in their order, and how many more failed of which none was kept."""
    path = root / str(mixed.id) / "errors.txt"
    connection.command("HSET", keys.failures(mixed.id), 3, "Traceback:\n  File x\nKeyError: 'ü'\n")
    connection.command("HDEL", keys.failures(mixed.id), 10)
    assert finish(connection, root, mixed.id, "w")
    assert path.read_text(encoding="utf-8") == (
        "Job 1_3\nTraceback:\n  File x\nKeyError: 'ü'\n\nJob 1_55\nValueError: made by hand\n\n"
        "Of 3 failed jobs these 2 have an error text that was kept.\n"
    )


def test_no_errors_are_left_of_an_earlier_end(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Once the failed jobs have completed there are none."""
    spec = submitter.submit(JOBS)
    run(connection, spec.id)
    assert finish(connection, root, spec.id, "w")
    path = root / str(spec.id) / "errors.txt"
    assert path.read_text().count("Job ") == len(FAILED)
    assert Controller(connection, queue.make_app(redis_url), root).requeue(spec.id) == len(FAILED)
    complete(connection, spec.id)
    assert finish(connection, root, spec.id, "w")
    assert not path.exists()
