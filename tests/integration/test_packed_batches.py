"""Batches with packed outputs, on real workers and through everything that happens to a batch."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from common import outputs, results
from common.audit import audit, verify
from common.batch import BatchSpec
from common.ledger import Connection, batches, control
from common.options import read_options
from common.packed import PACKED_NAME
from common.packed_index import INDEX_NAME
from common.settings import Settings
from common.submission import Submitter
from services.worker.finish import finish as write_results
from tests.conftest import StartWorker
from tests.integration.api_support import assert_problem
from tests.integration.recovery_support import again, run_jobs, waiting
from tests.integration.test_client import cli
from tests.support import (
    counted,
    differences,
    expected_csv,
    expected_files,
    files,
    wait_for,
)

SEED = 42
PACKED = read_options({"output_mode": "packed"})


def exported(root: Path, spec: BatchSpec, target: Path) -> dict[str, bytes]:
    """The batch's CSVs as files."""
    results.export(outputs.locate(root, spec), spec, target)
    return files(target)


@pytest.mark.parametrize("count", [1, 2])
def test_packed_is_as_files(
    submitter: Submitter, connection: Connection, root: Path, worker: StartWorker, tmp_path: Path, count: int
) -> None:
    """The same seed with the same workers: the same bytes, statistics and results.csv, but for times."""
    started = [worker(slots=1, LEASE_SECONDS=600) for _ in range(count)]
    plain, packed = submitter.submit(3000, SEED), submitter.submit(3000, SEED, options=PACKED)
    for spec in (plain, packed):
        wait_for(
            lambda batch=spec.id: batches.view(connection, batch).finished,  # type: ignore[misc]
            60,
            "the end",
            lambda: [running.text()[-2000:] for running in started],
        )
    wanted = expected_files(SEED, 3000)
    assert differences(files(root / str(plain.id)), wanted) == []
    assert files(root / str(packed.id)) == {}
    assert differences(exported(root, packed, tmp_path / "out"), wanted) == []
    assert (root / str(packed.id) / PACKED_NAME / INDEX_NAME).exists()
    assert len(list((root / str(packed.id) / PACKED_NAME).iterdir())) <= count + 2
    for spec in (plain, packed):
        assert counted(connection, spec.id) == {"COMPLETED": 3000}
        assert audit(connection, root, spec.id) == []
        assert verify(root, spec, sample=50) == []
    tables = [(root / str(spec.id) / "results.csv").read_text().splitlines() for spec in (plain, packed)]
    same = [[(row.split(",")[0:4], row.split(",")[-2:]) for row in table] for table in tables]
    assert same[0] == same[1]


def test_csvs_over_the_api_while_it_runs_and_after(
    submitter: Submitter, connection: Connection, root: Path, client: FlaskClient
) -> None:
    """What was committed is there at once, what has not run is not found, and the end changes no byte."""
    spec = submitter.submit(100, SEED, options=PACKED)
    ran: list[int] = []
    for most in (30, 20):
        ran += run_jobs(connection, root, spec.id, most)
        for index in range(1, 101):
            with client.get(f"/outputs/{spec.id}/job_{index}.csv") as response:
                assert response.status_code == (200 if index in ran else 404)
                assert response.data == expected_csv(SEED, index) or index not in ran
    run_jobs(connection, root, spec.id)
    assert write_results(connection, root, spec.id, "w")
    with client.get(f"/outputs/{spec.id}/job_100.csv") as response:
        assert (response.data, response.mimetype) == (expected_csv(SEED, 100), "text/csv")
    with client.head(f"/outputs/{spec.id}/job_1.csv") as response:
        assert (response.status_code, response.data) == (200, b"")
    listed = client.get(f"/batches/{spec.id}/jobs?limit=1").get_json()["jobs"][0]["csv"]
    assert client.get(listed).data == expected_csv(SEED, 1)


@pytest.mark.parametrize(
    "name",
    ["job_0.csv", "job_01.csv", "job_-1.csv", "job_101.csv", "job_999999999.csv", "job_9999999999.csv", "job_1.csv.bak",
     "job_%D9%A1.csv", "packed", "index.bin", "segment-w-0.bin", "packed/index.bin", "..%2fjob_1.csv", "batch.json"],
)  # fmt: skip
def test_no_other_file_of_a_packed_batch(
    submitter: Submitter, connection: Connection, root: Path, client: FlaskClient, name: str
) -> None:
    """404, whatever is asked for; its segments are nobody's business."""
    spec = submitter.submit(100, SEED, options=PACKED)
    run_jobs(connection, root, spec.id)
    assert write_results(connection, root, spec.id, "w")
    with client.get(f"/outputs/{spec.id}/{name}") as response:
        assert_problem(response, 404, "name" if response.get_json(force=True).get("field") else None)


def test_a_rebuild_keeps_packed_results(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, tmp_path: Path
) -> None:
    """Redis is emptied: what is in the segments is done, only what is missing runs, and a torn end is no result."""
    spec = submitter.submit(200, SEED, options=PACKED)
    ran = run_jobs(connection, root, spec.id, 70)
    [segment] = (root / str(spec.id) / PACKED_NAME).glob("segment-*.bin")
    with segment.open("ab") as file:
        file.write(segment.read_bytes()[:100])
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    missing = [index for index in range(1, 201) if index not in ran]
    assert waiting(connection, spec.id) == missing
    assert audit(connection, root, spec.id) == []
    assert run_jobs(connection, root, spec.id) == missing
    assert write_results(connection, root, spec.id, "w")
    assert counted(connection, spec.id) == {"COMPLETED": 200}
    assert audit(connection, root, spec.id) == []
    assert differences(exported(root, spec, tmp_path / "out"), expected_files(SEED, 200)) == []


def test_a_start_up_batch_is_archived_with_its_packed_directory(
    submitter: Submitter, connection: Connection, root: Path, client: FlaskClient
) -> None:
    """The next one's files lie beside no segment of it; each is served its own, also by an API that served the old."""
    old = submitter.submit(10, 1, options=PACKED, startup=True)
    run_jobs(connection, root, old.id)
    assert write_results(connection, root, old.id, "w")
    assert client.get("/outputs/job_3.csv").data == expected_csv(1, 3)
    given = Settings(_env_file=None, num_jobs=5, seed=2, output_dir=root)  # type: ignore[call-arg]
    new = submitter.start_up(given, "next")
    assert new.id != old.id
    assert not (root / PACKED_NAME).exists()
    assert (root / str(old.id) / PACKED_NAME / INDEX_NAME).exists()
    assert_problem(client.get("/outputs/job_3.csv"), 404, "name")
    for index in range(1, 11):
        assert client.get(f"/outputs/{old.id}/job_{index}.csv").data == expected_csv(1, index)
    assert audit(connection, root, old.id) == []
    assert verify(root, old) == []


def test_a_packed_batch_after_a_packed_batch(
    submitter: Submitter, connection: Connection, root: Path, client: FlaskClient
) -> None:
    """Both in the directory itself, one after the other: never a byte of the other."""
    for seed in (1, 2, 3):
        outputs.archive_startup(root)
        spec = submitter.submit(10, seed, options=PACKED, startup=True)
        assert_problem(client.get("/outputs/job_10.csv"), 404, "name")
        run_jobs(connection, root, spec.id)
        assert write_results(connection, root, spec.id, "w")
        assert client.get("/outputs/job_10.csv").data == expected_csv(seed, 10)


def test_export(submitter: Submitter, connection: Connection, root: Path, tmp_path: Path) -> None:
    """As a user types it, of a batch that still runs and of one that has ended."""
    spec = submitter.submit(50, SEED, options=PACKED)
    ran = run_jobs(connection, root, spec.id, 20)
    done = cli("export", "--batch", spec.id, tmp_path / "part", OUTPUT_DIR=root)
    assert (done.returncode, done.stdout) == (0, f"20 files in {tmp_path / 'part'}/\n"), done
    assert files(tmp_path / "part") == {f"job_{index}.csv": expected_csv(SEED, index) for index in ran}
    run_jobs(connection, root, spec.id)
    assert write_results(connection, root, spec.id, "w")
    done = cli("export", "--batch", spec.id, tmp_path / "all", OUTPUT_DIR=root)
    assert done.returncode == 0, done
    assert files(tmp_path / "all") == expected_files(SEED, 50)


def test_a_lost_result_is_found_and_run_again(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, client: FlaskClient
) -> None:
    """Audit and doctor name what a damaged segment has lost; requeue runs it again; then all is well."""
    spec = submitter.submit(20, SEED, options=PACKED)
    run_jobs(connection, root, spec.id)
    assert write_results(connection, root, spec.id, "w")
    place = root / str(spec.id) / PACKED_NAME
    (place / INDEX_NAME).unlink()
    [segment] = place.glob("segment-*.bin")
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])
    lost = [line for line in audit(connection, root, spec.id) if "is missing" in line]
    assert 0 < len(lost) < 20
    said = client.post(f"/batches/{spec.id}/requeue", json={"missing": True}).get_json()
    assert said["requeued"] == len(lost)
    assert len(run_jobs(connection, root, spec.id)) == len(lost)
    assert write_results(connection, root, spec.id, "w")
    assert audit(connection, root, spec.id) == []
    done = cli("doctor", REDIS_URL=redis_url, OUTPUT_DIR=root)
    assert done.returncode == 0, done


def test_a_worker_that_is_killed(
    submitter: Submitter, connection: Connection, root: Path, worker: StartWorker, tmp_path: Path
) -> None:
    """Its segment may end in the middle of a block; another worker runs the rest, and the bytes are as ever."""
    first = worker(slots=1)
    spec = submitter.submit(400, SEED, job_seconds=0.005, options=PACKED)
    wait_for(lambda: counted(connection, spec.id).get("COMPLETED", 0) > 50, 20, "some jobs", first.text)
    first.kill()
    second = worker(slots=1)
    wait_for(lambda: batches.view(connection, spec.id).finished, 60, "the end", second.text)
    assert counted(connection, spec.id) == {"COMPLETED": 400}
    assert audit(connection, root, spec.id) == []
    assert differences(exported(root, spec, tmp_path / "out"), expected_files(SEED, 400)) == []


def test_cancelled_jobs_of_a_packed_batch(
    submitter: Submitter, connection: Connection, root: Path, client: FlaskClient, tmp_path: Path
) -> None:
    """What was cancelled has no result over the API, nor in an export."""
    spec = submitter.submit(10, SEED, options=PACKED)
    control.cancel(connection, spec.id, 4, 10)
    run_jobs(connection, root, spec.id)
    assert write_results(connection, root, spec.id, "w")
    assert_problem(client.get(f"/outputs/{spec.id}/job_4.csv"), 404, "name")
    assert sorted(exported(root, spec, tmp_path / "out")) == ["job_1.csv", "job_2.csv", "job_3.csv"]
    assert audit(connection, root, spec.id) == []
