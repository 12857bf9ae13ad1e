"""The results files of an ended batch: one row per job, equal to the table, written by one, and only then finished."""

import csv
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from common import queue
from common.audit import audit
from common.batch import BatchSpec, JobState
from common.control import Controller
from common.errors import BatchSimError
from common.ledger import Connection, batches, control, finishing, keys, ranges, workers
from common.ledger.table import read, record_dtype
from common.settings import Settings
from common.submission import Submitter
from services.worker import finish as finish_module
from services.worker.finish import finish
from tests.integration.recovery_support import SEED, assert_whole, run_jobs, write_job
from tests.support import OUTPUTS, dump, expected_files, files, slice_of
from tests.support import finish as complete

JOBS = 100
CHUNK = 7
FAILED = (3, 10, 55)


@pytest.fixture
def submitter(connection: Connection, redis_url: str, root: Path) -> Submitter:
    """Submits to the test's Redis and directory."""
    return Submitter(connection, queue.make_app(redis_url), root)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred jobs are many chunks."""
    monkeypatch.setattr(finish_module, "CHUNK_JOBS", CHUNK)


def run(connection: Connection, batch: int, *, most: int = JOBS) -> None:
    """Complete ``most`` jobs with random values; some fail."""
    rng = np.random.default_rng(1)
    workers.slot_number(connection, "w/0")
    done = 0
    while done < most:
        lease, _ = ranges.claim(connection, (batch, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
        assert lease is not None
        count = min(lease.count, most - done)
        failed = [index for index in FAILED if lease.first <= index < lease.first + count]
        work = slice_of(lease.first, rng.normal(500, 20, count).tolist(), failed=failed)
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1, give_back=True)
        done += count


@pytest.fixture
def mixed(submitter: Submitter, connection: Connection) -> BatchSpec:
    """An ended batch with completed, failed and cancelled jobs."""
    spec = submitter.submit(JOBS, 2**53 - 1)
    run(connection, spec.id, most=90)
    assert control.cancel(connection, spec.id)[0] == 10
    return spec


def states(connection: Connection, spec: BatchSpec) -> Iterator[str]:
    """The states of the jobs of an ended batch, by their records."""
    for code in read(connection, spec.id, 1, spec.jobs, record_dtype(OUTPUTS))["state"].tolist():
        yield JobState(code).name if code else "CANCELLED"


def rows(place: Path) -> list[dict[str, str]]:
    """The rows of results.csv as text."""
    with (place / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_only_one_of_many_callers_writes(connection: Connection, redis_url: str, root: Path, mixed: BatchSpec) -> None:
    """Of eight at once one writes; afterwards nobody does, and the files stay the same."""
    answers: list[bool] = []
    barrier = threading.Barrier(8)

    def one(name: str) -> None:
        own = Connection(redis_url)
        barrier.wait()
        answers.append(finish(own, root, mixed.id, name))
        own.close()

    threads = [threading.Thread(target=one, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    before = (root / str(mixed.id) / "summary.json").stat()
    assert not finish(connection, root, mixed.id, "w")
    assert (root / str(mixed.id) / "summary.json").stat() == before


def test_a_batch_that_runs_is_not_finished(submitter: Submitter, connection: Connection, root: Path) -> None:
    """Nothing is written before the last job has ended."""
    spec = submitter.submit(5)
    run(connection, spec.id, most=4)
    assert not finish(connection, root, spec.id, "w")
    assert not (root / str(spec.id) / "results.csv").exists()


def test_a_dead_writer_is_replaced(connection: Connection, root: Path, mixed: BatchSpec) -> None:
    """While one writes no other does; when its claim has run out another starts over, whatever lies there."""
    assert finishing.claim(connection, mixed.id, "dead", seconds=60)
    (root / str(mixed.id) / f".staging-{mixed.id}" / ".results.csv.tmp").write_text("half")
    (root / str(mixed.id) / "results.csv").write_text("half")
    assert not finish(connection, root, mixed.id, "w")
    connection.command("DEL", keys.finisher(mixed.id))
    assert finish(connection, root, mixed.id, "w")
    assert len(rows(root / str(mixed.id))) == JOBS


def test_a_start_up_batch_that_was_archived_meanwhile(submitter: Submitter, connection: Connection, root: Path) -> None:
    """Its results go to where its files are now, and nothing beside the next start-up batch's files."""
    given = Settings(_env_file=None, num_jobs=5, seed=1, output_dir=root)  # type: ignore[call-arg]
    first = submitter.start_up(given, "c1")
    complete(connection, first.id)
    second = submitter.start_up(given.model_copy(update={"num_jobs": 6}), "c2")
    before = {path.name for path in root.iterdir()}
    assert finish(connection, root, first.id, "w")
    assert {path.name for path in root.iterdir()} == before
    assert {path.name for path in (root / str(first.id)).iterdir()} == {
        "batch.json", "results.csv", "results.parquet", "summary.json"
    }  # fmt: skip
    assert json.loads((root / str(first.id) / "summary.json").read_text())["batch"] == first.id
    assert not batches.view(connection, second.id).ended


def test_the_start_up_batchs_results_lie_in_outputs_itself(
    submitter: Submitter, connection: Connection, root: Path
) -> None:
    """Beside its CSVs, as the original had them; the next start-up batch takes them along when it archives."""
    given = Settings(_env_file=None, num_jobs=5, seed=1, output_dir=root)  # type: ignore[call-arg]
    first = submitter.start_up(given, "c1")
    complete(connection, first.id)
    assert finish(connection, root, first.id, "w")
    assert len(rows(root)) == 5
    submitter.start_up(given, "c2")
    assert not (root / "summary.json").exists()
    assert len(rows(root / str(first.id))) == 5


def test_a_directory_that_is_gone_leaves_the_batch_to_be_finished(
    connection: Connection, root: Path, mixed: BatchSpec
) -> None:
    """The failure is an OSError, the batch is not called finished, and works once the directory is back."""
    place = root / str(mixed.id)
    place.rename(root / "away")
    with pytest.raises(OSError, match="No such file"):
        finish(connection, root, mixed.id, "w")
    assert finishing.awaited(connection) == [mixed.id]
    assert not batches.view(connection, mixed.id).finished
    (root / "away").rename(place)
    assert finish(connection, root, mixed.id, "w")
    assert len(rows(place)) == JOBS


def test_an_unknown_batch(connection: Connection, root: Path) -> None:
    """A message for a batch that Redis has forgotten is an error of ours, and makes no file."""
    with pytest.raises(BatchSimError, match="no batch 7"):
        finish(connection, root, 7, "w")
    assert list(root.iterdir()) == []


def strayed(submitter: Submitter, connection: Connection, root: Path) -> BatchSpec:
    """An ended batch whose job 2 was written, and cancelled before it could be committed."""
    spec = submitter.submit(4, SEED)
    write_job(root, spec, 2)
    control.cancel(connection, spec.id, 2, 2)
    run_jobs(connection, root, spec.id)
    return spec


def test_strays_are_removed(submitter: Submitter, connection: Connection, root: Path) -> None:
    """A cancelled job has no CSV, and the others' are whole."""
    spec = strayed(submitter, connection, root)
    assert finish(connection, root, spec.id, "w")
    assert sorted(files(root / str(spec.id))) == ["job_1.csv", "job_3.csv", "job_4.csv"]
    assert audit(connection, root, spec.id) == []


STEPS = ["_outputs", "_remove_strays", "_move"]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_finisher_that_slept_while_the_batch_ran_again(
    submitter: Submitter,
    connection: Connection,
    redis_url: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    ended: bool,
) -> None:
    """Wherever it slept: what it had read is not the batch any more, so it changes neither its files nor its end."""
    spec = strayed(submitter, connection, root)
    place, real = root / str(spec.id), getattr(finish_module, step)

    def meanwhile() -> None:
        connection.command("DEL", keys.finisher(spec.id))
        assert finish(connection, root, spec.id, "v")
        assert Controller(connection, queue.make_app(redis_url), root).requeue(spec.id, [JobState.CANCELLED]) == 1
        if ended:
            assert run_jobs(connection, root, spec.id) == [2]
        else:
            write_job(root, spec, 2)

    def slept(*given: object) -> object:
        monkeypatch.setattr(finish_module, step, real)
        meanwhile()
        return real(*given)

    monkeypatch.setattr(finish_module, step, slept)
    assert not finish(connection, root, spec.id, "w")
    assert files(place) == expected_files(SEED, 4)
    assert not (place / "summary.json").exists()
    assert not batches.view(connection, spec.id).finished
    assert not finishing.is_claimed(connection, spec.id)
    run_jobs(connection, root, spec.id)
    assert_whole(connection, root, spec)


def test_an_end_that_is_over_is_not_finished(submitter: Submitter, connection: Connection) -> None:
    """The ledger takes the word only of who has read the batch as it ended last, and leaves another's claim to him."""
    spec = submitter.submit(2)
    run(connection, spec.id, most=2)
    first = batches.view(connection, spec.id).ended
    assert finishing.finished(connection, spec.id, first)
    assert control.requeue(connection, spec.id, [(1, 2, JobState.COMPLETED, 1)], {})
    assert not finishing.finished(connection, spec.id, first), "it runs"
    run(connection, spec.id, most=2)
    assert finishing.claim(connection, spec.id, "another", seconds=60)
    before = dump(connection)
    assert not finishing.finished(connection, spec.id, first)
    assert not finishing.finished(connection, spec.id, None)
    assert dump(connection) == before
    assert finishing.finished(connection, spec.id, batches.view(connection, spec.id).ended)
