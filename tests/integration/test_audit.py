"""The audit finds each kind of damage, which is really done here, and nothing in a batch that is whole."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from common import outputs, queue
from common.audit import audit, verify
from common.batch import BatchSpec, JobState
from common.jobs import Jobs
from common.ledger import Connection, control, keys, ranges
from common.ledger.table import record_dtype
from common.submission import Submitter
from services.worker.finish import finish
from tests.support import OUTPUTS, RECORD_SIZE, expected_csv, expected_row, slice_of

SEED = 42
JOBS = 20
FAILED = 7


@pytest.fixture
def submitter(connection: Connection, redis_url: str, root: Path) -> Submitter:
    """Submits to the test's Redis and directory."""
    return Submitter(connection, queue.make_app(redis_url), root)


def work(connection: Connection, root: Path, spec: BatchSpec, most: int) -> None:
    """Run jobs with their real results and files; one fails."""
    for _ in range(most):
        lease, _ = ranges.claim(
            connection, (spec.id, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1, jobs_per_task=1
        )
        assert lease is not None
        index, failed = lease.first, [FAILED] if lease.first == FAILED else []
        if not failed:
            (outputs.directory(root, spec) / outputs.job_name(index)).write_bytes(Jobs(spec).result(index)[0])
        done = slice_of(index, [float(expected_row(spec.seed, index)[1])], failed=failed)
        ranges.commit(connection, lease, done, lease_seconds=60, slice_seconds=1)


@pytest.fixture
def whole(submitter: Submitter, connection: Connection, root: Path) -> BatchSpec:
    """A finished batch: one job failed, the others completed."""
    spec = submitter.submit(JOBS, SEED)
    work(connection, root, spec, JOBS)
    assert finish(connection, root, spec.id, "w")
    return spec


@pytest.fixture
def running(submitter: Submitter, connection: Connection, root: Path) -> BatchSpec:
    """A batch with 10 jobs done, 2 leased, 8 waiting."""
    spec = submitter.submit(JOBS, SEED)
    work(connection, root, spec, 10)
    for _ in range(2):
        ranges.claim(connection, (spec.id, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
    return spec


def test_nothing_is_found_in_whole_batches(connection: Connection, root: Path, whole: BatchSpec) -> None:
    """A finished batch with a failed job is whole, with and without its files."""
    assert audit(connection, root, whole.id) == []
    assert audit(connection, root, whole.id, files=False) == []
    assert verify(root, whole, sample=JOBS) == []


def test_nothing_is_found_in_running_and_cancelled_batches(
    connection: Connection, root: Path, running: BatchSpec
) -> None:
    """A batch is whole at every stage of its life."""
    assert audit(connection, root, running.id) == []
    control.cancel(connection, running.id)
    assert audit(connection, root, running.id) == []
    assert finish(connection, root, running.id, "w")
    assert audit(connection, root, running.id) == []


Damage = Callable[[Connection, Path, int], object]


def record_at(batch: int, index: int, data: bytes, offset: int = 0) -> tuple[object, ...]:
    """The command that overwrites a part of a record."""
    return "SETRANGE", keys.table(batch, 0), (index - 1) * RECORD_SIZE + offset, data


OUT_SUM = int(record_dtype(OUTPUTS).fields["out:sum"][1])  # type: ignore[index]

DAMAGE: dict[str, tuple[Damage, str]] = {
    "a job too many in a counter": (
        lambda c, p, b: c.command("HINCRBY", keys.batch(b), "COMPLETED", 1),
        "counters add up to 21",
    ),
    "a job in another counter": (
        lambda c, p, b: (
            c.command("HINCRBY", keys.batch(b), "COMPLETED", -1),
            c.command("HINCRBY", keys.batch(b), "TIMEOUT", 1),
        ),
        "1 jobs are counted as TIMEOUT, but 0",
    ),
    "a negative counter": (
        lambda c, p, b: (
            c.command("HINCRBY", keys.batch(b), "PENDING", -1),
            c.command("HINCRBY", keys.batch(b), "RUNNING", 1),
        ),
        "counters add up",
    ),
    "a record of another state": (
        lambda c, p, b: c.command(*record_at(b, 5, bytes([JobState.FAILED]))),
        "are counted as COMPLETED, but 18 records",
    ),
    "a record that is empty": (
        lambda c, p, b: c.command(*record_at(b, 5, bytes(RECORD_SIZE))),
        "0 jobs have not run by the counters, 1",
    ),
    "a record with another value": (
        lambda c, p, b: c.command(*record_at(b, 5, struct.pack("<d", 1.0), OUT_SUM)),
        "its record says 1.0",
    ),
    "the table is gone": (lambda c, p, b: c.command("DEL", keys.table(b, 0)), "records of []"),
    "a CSV is gone": (lambda c, p, b: (p / "job_5.csv").unlink(), "_5 is missing"),
    "a CSV is empty": (lambda c, p, b: (p / "job_5.csv").write_bytes(b""), "_5 cannot be read"),
    "a CSV is another job's": (
        lambda c, p, b: (p / "job_5.csv").write_bytes(expected_csv(SEED, 6)),
        "_5 says sum =",
    ),
    "a CSV of a failed job": (
        lambda c, p, b: (p / f"job_{FAILED}.csv").write_bytes(expected_csv(SEED, FAILED)),
        "_7 is FAILED, but it has a CSV",
    ),
    "another mean": (
        lambda c, p, b: c.command("HINCRBYFLOAT", keys.statistics(b), "sum:mean", "0.001"),
        "The mean of sum is",
    ),
    "another number of values": (
        lambda c, p, b: c.command("HINCRBY", keys.statistics(b), "mean:n", 1),
        "The n of mean is 20",
    ),
    "no statistics": (lambda c, p, b: c.command("DEL", keys.statistics(b)), "There are statistics of []"),
    "a left-over staging directory": (
        lambda c, p, b: (p / f".staging-{b}").mkdir(),
        "staging directory is still there",
    ),
    "no summary": (lambda c, p, b: (p / "summary.json").unlink(), "summary.json is missing"),
    "an end that was forgotten": (lambda c, p, b: c.command("HDEL", keys.batch(b), "ended"), "its end is None"),
    "the directory is gone": (lambda c, p, b: shutil.rmtree(p), "_20 is missing"),
    "a range of a batch that has ended": (
        lambda c, p, b: (
            c.command("HSET", keys.leased_range("x"), "batch", b, "first", 3, "count", 1, "partition", "default"),
            c.command("ZADD", keys.ranges(b), 1, "x"),
        ),
        "0 jobs are open, but the ranges that wait or are leased have 1",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_a_finished_batch_is_found(connection: Connection, root: Path, whole: BatchSpec, name: str) -> None:
    """Each is said in a sentence, and the audit itself changes nothing."""
    harm, said = DAMAGE[name]
    harm(connection, root / str(whole.id), whole.id)
    found = audit(connection, root, whole.id)
    assert any(said in problem for problem in found), found
    assert audit(connection, root, whole.id) == found


def first_waiting(connection: Connection, batch: int) -> str:
    """The token of the waiting range with the lowest job."""
    found = [
        t for t in ranges.open_ranges(connection, batch) if connection.command("ZSCORE", keys.ranges(batch), t.token)
    ]
    return min(found, key=lambda ticket: ticket.first).token


def test_a_range_that_is_too_long_is_found(connection: Connection, root: Path, running: BatchSpec) -> None:
    """More jobs in the ranges than are open."""
    connection.command("HINCRBY", keys.leased_range(first_waiting(connection, running.id)), "count", 1)
    found = audit(connection, root, running.id)
    assert any("10 jobs are open, but the ranges that wait or are leased have 11" in problem for problem in found)
    assert any("are in two ranges" in problem for problem in found)


def test_a_range_that_lies_on_another_is_found(connection: Connection, root: Path, running: BatchSpec) -> None:
    """As many jobs as are open, but one of them twice."""
    connection.command("HINCRBY", keys.leased_range(first_waiting(connection, running.id)), "first", 1)
    assert audit(connection, root, running.id) == ["Jobs 14 … 14 are in two ranges."]


def test_a_range_over_jobs_that_have_ended_is_found(connection: Connection, root: Path, running: BatchSpec) -> None:
    """As many jobs as are open, but one that is done already instead of one that is not."""
    connection.command("HSET", keys.leased_range(first_waiting(connection, running.id)), "first", 1)
    assert audit(connection, root, running.id) == ["The open range 1 … 1 has jobs that have ended."]


def test_a_range_that_is_missing_is_found(connection: Connection, root: Path, running: BatchSpec) -> None:
    """An open job that no range has would never run."""
    token = first_waiting(connection, running.id)
    connection.command("ZREM", keys.ranges(running.id), token)
    (problem,) = audit(connection, root, running.id)
    assert "10 jobs are open, but the ranges that wait or are leased have 9" in problem


def test_a_range_outside_of_the_batch_is_found(connection: Connection, root: Path, running: BatchSpec) -> None:
    """As many jobs as are open, but one of them is none of the batch's."""
    connection.command("HSET", keys.leased_range(first_waiting(connection, running.id)), "first", JOBS + 1)
    assert audit(connection, root, running.id) != []


# ---- verify ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 25, -1])
def test_verify_finds_an_altered_byte(root: Path, whole: BatchSpec, position: int) -> None:
    """Any byte of any file, also one that changes no number."""
    path = root / str(whole.id) / "job_5.csv"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    (problem,) = verify(root, whole, sample=JOBS)
    assert f"Job {whole.id}_5 gives other bytes" in problem


def test_verify_finds_another_seed(root: Path, whole: BatchSpec) -> None:
    """A batch.json with another seed than the files were made with."""
    place = root / str(whole.id)
    spec = json.loads((place / "batch.json").read_text())
    (place / "batch.json").write_text(json.dumps({**spec, "seed": SEED + 1}))
    altered = outputs.read_spec(place)
    assert altered is not None
    assert len(verify(root, altered, sample=JOBS)) == JOBS - 1


def test_verify_takes_a_sample(root: Path, whole: BatchSpec) -> None:
    """Of many jobs only so many run again, the same for the same seed."""
    for path in (root / str(whole.id)).glob("job_*.csv"):
        path.write_bytes(b"")
    found = verify(root, whole, sample=5, seed=1)
    assert 4 <= len(found) <= 5
    assert verify(root, whole, sample=5, seed=1) == found
