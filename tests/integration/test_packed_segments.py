"""Packed batches whose segments hold what they should not: bits that have rotted, results that were not committed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from common import outputs, packed_index, results
from common.audit import audit
from common.batch import BatchSpec
from common.ledger import Connection, control
from common.options import read_options
from common.packed import PACKED_NAME, blocks
from common.submission import Submitter
from services.worker.finish import finish as write_results
from tests.integration.api_support import assert_problem
from tests.integration.recovery_support import again, run_jobs, waiting
from tests.integration.test_client import cli
from tests.integration.test_packed_batches import exported
from tests.support import (
    counted,
    differences,
    expected_csv,
    expected_files,
)
from tests.unit.packed_support import flip

SEED = 42
PACKED = read_options({"output_mode": "packed"})


def rotten_batch(submitter: Submitter, connection: Connection, root: Path) -> tuple[BatchSpec, Path, list[int]]:
    """A batch that has ended, with an index; its segment, in whose first block a bit has flipped; that one's jobs."""
    spec = submitter.submit(300, SEED, options=PACKED)
    run_jobs(connection, root, spec.id)
    assert write_results(connection, root, spec.id, "w")
    [segment] = (root / str(spec.id) / PACKED_NAME).glob("segment-*.bin")
    with segment.open("rb") as file:
        first, *others = blocks(file.fileno(), 0, segment.stat().st_size)
    assert others
    assert len(first.indices) > 1
    flip(segment, first.payload + 40)
    return spec, segment, sorted(first.indices.tolist())


def test_a_rotten_bit(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, client: FlaskClient, tmp_path: Path
) -> None:
    """Audit and doctor name the file and the jobs of its block; a requeue runs these again and harms no other."""
    spec, segment, jobs = rotten_batch(submitter, connection, root)
    rotten = segment.read_bytes()
    told = audit(connection, root, spec.id)
    assert told[:-1] == [f"The CSV of job {spec.id}_{index} is missing." for index in jobs]
    assert told[-1].endswith(f" of {segment} are damaged, or were not written to their end.")
    assert told[-1] in cli("doctor", REDIS_URL=redis_url, OUTPUT_DIR=root).stdout
    assert told[-1] in cli("doctor", "--sample", 0, OUTPUT_DIR=root).stdout
    assert client.post(f"/batches/{spec.id}/requeue", json={"missing": True}).get_json()["requeued"] == len(jobs)
    assert run_jobs(connection, root, spec.id) == jobs
    assert write_results(connection, root, spec.id, "w")
    assert segment.read_bytes() == rotten
    assert audit(connection, root, spec.id) == []
    assert differences(exported(root, spec, tmp_path / "out"), expected_files(SEED, 300)) == []
    assert cli("doctor", REDIS_URL=redis_url, OUTPUT_DIR=root).returncode == 0


def test_a_rotten_bit_and_redis_emptied(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, tmp_path: Path
) -> None:
    """No number of a damaged block gets into the ledger, whatever the index says; its jobs run again."""
    spec, _, jobs = rotten_batch(submitter, connection, root)
    (root / str(spec.id) / outputs.SUMMARY_NAME).unlink()
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    assert waiting(connection, spec.id) == jobs
    assert run_jobs(connection, root, spec.id) == jobs
    assert write_results(connection, root, spec.id, "w")
    assert audit(connection, root, spec.id) == []
    assert differences(exported(root, spec, tmp_path / "out"), expected_files(SEED, 300)) == []


def test_a_result_that_was_never_committed_is_not_served_after_the_end(
    submitter: Submitter, connection: Connection, root: Path, client: FlaskClient
) -> None:
    """Also by an API that had found it while the batch ran; run again it is there, before and after the next end."""
    spec = submitter.submit(10, SEED, options=PACKED)
    run_jobs(connection, root, spec.id, 3)
    with results.writer(root, spec, "t", "none") as writer:
        writer.write(4, expected_csv(SEED, 4))
        writer.sync()
    assert client.get(f"/outputs/{spec.id}/job_1.csv").data == expected_csv(SEED, 1)
    assert client.get(f"/outputs/{spec.id}/job_4.csv").status_code == 200
    control.cancel(connection, spec.id)
    assert write_results(connection, root, spec.id, "w")
    assert client.get(f"/outputs/{spec.id}/job_1.csv").data == expected_csv(SEED, 1)
    assert_problem(client.get(f"/outputs/{spec.id}/job_4.csv"), 404, "name")
    assert client.post(f"/batches/{spec.id}/requeue", json={"states": ["CANCELLED"]}).get_json()["requeued"] == 7
    assert_problem(client.get(f"/outputs/{spec.id}/job_4.csv"), 404, "name")
    run_jobs(connection, root, spec.id)
    for _ in range(2):
        for index in range(1, 11):
            assert client.get(f"/outputs/{spec.id}/job_{index}.csv").data == expected_csv(SEED, index)
        write_results(connection, root, spec.id, "w")
    assert counted(connection, spec.id) == {"COMPLETED": 10}


def test_a_slot_that_writes_while_the_batch_is_finished(
    submitter: Submitter, connection: Connection, root: Path, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was not allowed to commit lies behind the index and is not served; nor when the batch has run again."""
    spec = submitter.submit(10, SEED, options=PACKED)
    run_jobs(connection, root, spec.id, 3)
    real = packed_index.write_index
    with results.writer(root, spec, "late", "none") as late:
        late.write(4, expected_csv(SEED, 4))

        def overtaken(place: Path, jobs: int, completed: np.ndarray, *, check: Callable[[], None]) -> None:
            real(place, jobs, completed, check=check)
            late.sync()
            # An API that asks right now; nobody has been told yet that the batch is finished.
            client.get(f"/outputs/{spec.id}/job_4.csv")

        monkeypatch.setattr(packed_index, "write_index", overtaken)
        control.cancel(connection, spec.id)
        assert write_results(connection, root, spec.id, "w")
    monkeypatch.undo()
    assert_problem(client.get(f"/outputs/{spec.id}/job_4.csv"), 404, "name")
    assert sorted(exported(root, spec, root / "out")) == ["job_1.csv", "job_2.csv", "job_3.csv"]
    assert client.get(f"/outputs/{spec.id}/job_1.csv").data == expected_csv(SEED, 1)
    assert client.post(f"/batches/{spec.id}/requeue", json={"states": ["CANCELLED"]}).get_json()["requeued"] == 7
    run_jobs(connection, root, spec.id)
    for _ in range(2):
        for index in range(1, 11):
            assert client.get(f"/outputs/{spec.id}/job_{index}.csv").data == expected_csv(SEED, index)
        write_results(connection, root, spec.id, "w")
    assert counted(connection, spec.id) == {"COMPLETED": 10}
