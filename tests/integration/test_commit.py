"""A commit on a real Redis: counted once or refused, and the counters always sum up."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import queue
from common.ledger import Connection, batches, control, keys, ranges
from common.ledger.ranges import MAX_CRASHES, Lease, Verdict
from common.ledger.table import SEGMENT_JOBS, read, record_dtype
from tests.integration.ledger_support import after, claim, commit, expire, submit, take
from tests.support import OUTPUTS, counted, dump, slice_of


def test_claim_and_commit_step_by_step(connection: Connection) -> None:
    """The counters tell the truth at every step from submit to the end."""
    spec = submit(connection, 3)
    seen = [counted(connection, spec.id)]
    for _ in range(3):
        lease = take(connection)
        seen.append(counted(connection, spec.id))
        verdict = commit(connection, lease, 1)
        seen.append(counted(connection, spec.id))
        assert verdict.word == "done"
    assert seen == [
        {"PENDING": 3},
        {"PENDING": 2, "RUNNING": 1},
        {"PENDING": 2, "COMPLETED": 1},
        {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1},
        {"PENDING": 1, "COMPLETED": 2},
        {"RUNNING": 1, "COMPLETED": 2},
        {"COMPLETED": 3},
    ]
    view = batches.view(connection, spec.id)
    assert verdict.ended
    assert view.state == "COMPLETED"
    assert view.created <= (view.started or 0) <= (view.ended or 0)
    assert ranges.owed(connection, queue.QUEUE) == (0, 0)
    assert connection.command("SMEMBERS", keys.ACTIVE) in (set(), [])
    left = {key for key in dump(connection) if b":range:" in key}
    assert left == set()


def test_commit_sent_twice_counts_once(connection: Connection) -> None:
    """The same commit again, as after a lost answer, says how to go on and changes nothing."""
    spec = submit(connection, 1000, slots=1)
    lease = take(connection)
    first = commit(connection, lease, 10)
    before = dump(connection)
    again = commit(connection, lease, 10)
    assert (
        (again.word, again.first, again.count)
        == (first.word, first.first, first.count)
        == ("continue", 11, lease.count - 10)
    )
    assert dump(connection) == before
    assert counted(connection, spec.id) == {"PENDING": 989, "RUNNING": 1, "COMPLETED": 10}


def test_last_commit_sent_twice_counts_once(connection: Connection) -> None:
    """A repeated commit of a finished range is refused."""
    spec = submit(connection, 2)
    lease = take(connection)
    assert commit(connection, lease, 1).word == "done"
    before = dump(connection)
    assert commit(connection, lease, 1).word == "stale"
    assert dump(connection) == before
    assert counted(connection, spec.id) == {"PENDING": 1, "COMPLETED": 1}


@pytest.mark.parametrize("how", ["expired", "named", "given back", "cancelled"])
def test_late_commit_changes_nothing_at_all(connection: Connection, how: str) -> None:
    """A commit whose lease was lost, for whatever reason, is refused, and not one byte in Redis differs."""
    spec = submit(connection, 500, slots=1)
    lease = take(connection)
    lease = after(lease, commit(connection, lease, 3))
    if how == "expired":
        expire(connection, lease)
        assert len(ranges.reclaim(connection)) == 1
    elif how == "cancelled":
        control.cancel(connection, spec.id)
    else:
        ranges.reclaim(connection, [lease.token], crashed=how == "named")
    before = dump(connection)
    assert commit(connection, lease, 5, value=1e9) == Verdict("stale")
    assert dump(connection) == before
    other = claim(connection)
    assert (other is None) == (how == "cancelled")
    before = dump(connection)
    assert commit(connection, lease, 5).word == "stale"
    assert dump(connection) == before
    counted(connection, spec.id)


def test_commit_gives_back_at_a_job_boundary(connection: Connection) -> None:
    """With ``give_back`` the rest waits under a new token that is to be published."""
    spec = submit(connection, 1000, slots=1)
    lease = take(connection)
    verdict = commit(connection, lease, 4, give_back=True)
    assert verdict.word == "released"
    [token] = verdict.tickets
    ticket = ranges.lookup(connection, token)
    assert ticket is not None
    assert (ticket.first, ticket.count) == (lease.first + 4, lease.count - 4)
    assert counted(connection, spec.id) == {"PENDING": 996, "COMPLETED": 4}
    assert commit(connection, lease, 1).word == "stale"


def test_empty_commit_gives_all_back_and_keeps_the_crashes(connection: Connection) -> None:
    """A slice without a job done, as on a full disk, loses nothing, and does not excuse earlier crashes."""
    spec = submit(connection, 1)
    lease = take(connection)
    ranges.reclaim(connection, [lease.token])
    for _ in range(MAX_CRASHES - 2):
        lease = take(connection)
        assert commit(connection, lease, 0, give_back=True).word == "released"
        assert counted(connection, spec.id) == {"PENDING": 1}
        ranges.reclaim(connection, [take(connection).token])
    ranges.reclaim(connection, [take(connection).token])
    assert counted(connection, spec.id) == {"FAILED": 1}


def test_records_and_statistics_across_a_segment_border(connection: Connection) -> None:
    """A slice that spans two strings of the table is read back whole."""
    jobs = SEGMENT_JOBS + 1000
    spec = submit(connection, jobs, slots=1)
    dtype = record_dtype(OUTPUTS)
    lease = next(found for found in iter(lambda: take(connection), None) if found.first + found.count > SEGMENT_JOBS)
    lease = after(lease, commit(connection, lease, SEGMENT_JOBS - lease.first - 1))
    commit(connection, lease, 6, value=77.0)
    found = read(connection, spec.id, lease.first, 7, dtype)
    assert found["state"].tolist() == [2] * 6 + [0]
    assert found["out:sum"].tolist() == [77.0] * 6 + [0.0]
    assert connection.command("EXISTS", keys.table(spec.id, 0), keys.table(spec.id, 1)) == 2


def test_failed_jobs_are_counted_and_explained(connection: Connection) -> None:
    """A FAILED job is in the counters, the table and the failures, and not in the statistics."""
    spec = submit(connection, 3)
    for index in (1, 2, 3):
        lease = take(connection)
        work = slice_of(lease.first, [float(index)], failed=[2])
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1)
    assert counted(connection, spec.id) == {"COMPLETED": 2, "FAILED": 1}
    assert batches.view(connection, spec.id).state == "FAILED"
    assert batches.failures(connection, spec.id) == {2: "ValueError: made by hand"}
    found = batches.statistics(connection, spec.id, OUTPUTS)["sum"]
    assert (found.n, found.mean, found.min, found.max) == (2, 2.0, 1.0, 3.0)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.integers(1, 150), st.integers(0, 4), st.integers(0, 2**32))
def test_statistics_equal_numpy_under_random_slicing(connection: Connection, jobs: int, slots: int, seed: int) -> None:
    """However the jobs are sliced, split, given back and lost, the statistics are those of the committed values."""
    connection.command("FLUSHALL")
    connection.command("HSET", keys.PARTITION_SLOTS, "default", slots)
    rng = np.random.default_rng(seed)
    values = rng.normal(1e3, 10 ** rng.uniform(-3, 6), jobs)
    spec = submit(connection, jobs, slots=1)
    while (lease := claim(connection)) is not None:
        commit_randomly(connection, lease, values, rng)
    assert counted(connection, spec.id) == {"COMPLETED": jobs}
    found = batches.statistics(connection, spec.id, OUTPUTS)["sum"]
    assert (found.n, found.min, found.max) == (jobs, values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.m2 == pytest.approx(values.var() * jobs, rel=1e-9)
    table = read(connection, spec.id, 1, jobs, record_dtype(OUTPUTS))
    assert table["out:sum"].tolist() == values.tolist()


def commit_randomly(connection: Connection, lease: Lease, values: "np.ndarray", rng: np.random.Generator) -> None:
    """Work on a lease in slices of random size, until it is done, given back, or lost."""
    current: Lease | None = lease
    while current is not None:
        done = int(rng.integers(1, current.count + 1))
        work = slice_of(current.first, values[current.first - 1 :][:done].tolist())
        if rng.random() < 0.1:
            ranges.reclaim(connection, [current.token], crashed=False)
        give_back = bool(rng.random() < 0.3)
        verdict = ranges.commit(connection, current, work, lease_seconds=60, slice_seconds=1, give_back=give_back)
        counted(connection, current.batch)
        current = after(current, verdict) if verdict.word == "continue" else None
