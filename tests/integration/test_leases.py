"""Leases on a real Redis: renewed while they are held, reclaimed once when they are lost, given up after crashes."""

import pytest

from common.batch import BatchSpec, JobState
from common.ledger import Connection, batches, control, keys, ranges, table
from common.ledger.ranges import MAX_CRASHES, Lease
from common.ledger.table import read, record_dtype
from tests.integration.ledger_support import after, claim, commit, expire, ids, submit, take
from tests.support import OUTPUTS, counted, dump


def test_renew(connection: Connection) -> None:
    """A held lease gets its new time, a lost one is named, and none comes to life again."""
    submit(connection, 3)
    held, lost = take(connection, lease=1.0), take(connection)
    ranges.reclaim(connection, [lost.token])
    assert ranges.renew(connection, {held.token: 0, lost.token: 0, "nonsense": 0}, lease_seconds=500) == [
        lost.token,
        "nonsense",
    ]
    seconds = int(connection.command("TIME")[0])
    assert float(connection.command("ZSCORE", keys.LEASES, held.token)) > seconds + 400
    assert connection.command("ZCARD", keys.LEASES) == 1
    assert ranges.renew(connection, {}, lease_seconds=5) == []


def at_job(connection: Connection, lease: Lease, job: int) -> list[str]:
    """Its holder says that it is at this job; whether it must stop."""
    return ranges.renew(connection, {lease.token: job}, lease_seconds=60)


def test_who_is_at_a_job_that_was_taken_away_must_stop(ledger: Connection) -> None:
    """The range is shorter than its holder knows: what it is at is cancelled; what it has done before, it commits."""
    spec = submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    assert at_job(ledger, lease, 42) == []
    assert control.cancel(ledger, spec.id, 42, 42)[0] == 1
    assert at_job(ledger, lease, 42) == [lease.token]
    assert at_job(ledger, lease, 41) == []
    assert commit(ledger, lease, 42).word == "shrunk"
    assert commit(ledger, lease, 41).word == "done"
    rest = take(ledger)
    assert (rest.first, rest.count) == (43, 58)
    commit(ledger, rest, 58)
    assert counted(ledger, spec.id) == {"COMPLETED": 99, "CANCELLED": 1}


@pytest.mark.parametrize(("state", "cancelled"), [("RUNNING", [(42, 1)]), ("PENDING", [(43, 58)])])
def test_which_job_runs(ledger: Connection, state: str, cancelled: list[tuple[int, int]]) -> None:
    """The one that the holder said it is at: what is before it is done, what is behind it waits."""
    spec = submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    at_job(ledger, lease, 42)
    assert batches.running_jobs(ledger, spec.id) == {42}
    control.cancel(ledger, spec.id, state=state)
    assert [(piece.first, piece.count) for piece in table.closed(ledger, spec.id)] == cancelled
    assert (at_job(ledger, lease, 42) == [lease.token]) is (state == "RUNNING")


def test_what_is_done_and_not_committed_is_not_cancelled(ledger: Connection) -> None:
    """By its number: it has ended, only nobody knows as yet, and the job in hand is not given up for it."""
    spec = submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    at_job(ledger, lease, 42)
    assert control.cancel(ledger, spec.id, 3, 5)[0] == 0
    assert at_job(ledger, lease, 42) == []
    assert control.cancel(ledger, spec.id, 3, 60)[0] == 58
    assert at_job(ledger, lease, 42) == [lease.token]


def test_at_a_job_beyond_its_range_none_runs(ledger: Connection) -> None:
    """What it does there is nobody's: there is no such job to cancel as RUNNING."""
    spec = submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    at_job(ledger, lease, 42)
    control.cancel(ledger, spec.id, 42, 42)
    assert control.cancel(ledger, spec.id, state="RUNNING")[0] == 0


def test_the_job_in_hand_is_not_shared_away(ledger: Connection) -> None:
    """Only what is behind it; and not before it has been at it for a slice."""
    submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    ledger.command("HSET", keys.PARTITION_SLOTS, "default", 3)
    ledger.command("HSET", keys.leased_range(lease.token), "since", 1)
    at_job(ledger, lease, 42)
    assert ranges.share(ledger, slice_seconds=1000) == []
    ledger.command("HSET", keys.leased_range(lease.token), "at_since", 1)
    parts = ranges.share(ledger, slice_seconds=1000)
    assert [(part.first, part.count) for part in parts] == [(62, 19), (81, 20)]
    assert at_job(ledger, lease, 42) == []
    assert at_job(ledger, lease, 62) == [lease.token]


def test_reclaim_takes_only_what_ran_out(connection: Connection) -> None:
    """A lease that runs is left alone; one whose time is over is offered under a new token, once."""
    spec = submit(connection, 3)
    dead, alive = take(connection), take(connection)
    expire(connection, dead)
    [ticket] = ranges.reclaim(connection)
    assert (ticket.batch, ticket.first, ticket.count) == (spec.id, dead.first, dead.count)
    assert ticket.token != dead.token
    assert ranges.reclaim(connection) == []
    assert ranges.reclaim(connection, [dead.token, "nonsense"]) == []
    assert counted(connection, spec.id) == {"PENDING": 2, "RUNNING": 1}
    assert commit(connection, alive, 1).word == "done"
    assert batches.view(connection, spec.id).crashes == 1


def test_reclaim_leaves_a_waiting_range(connection: Connection) -> None:
    """A range that nobody holds cannot be taken from its holder."""
    spec = BatchSpec(next(ids), 1, 1)
    _, [ticket] = batches.submit(connection, spec)
    before = dump(connection)
    assert ranges.reclaim(connection, [ticket.token]) == []
    assert ranges.reclaim(connection) == []
    assert dump(connection) == before


def test_after_five_crashes_the_head_job_fails(connection: Connection) -> None:
    """The job that kills its process is FAILED with the reason; the others of its range go on from zero."""
    spec = submit(connection, 300, slots=1)
    begin = take(connection)
    lease = begin
    for crash in range(1, MAX_CRASHES + 1):
        [ticket] = ranges.reclaim(connection, [lease.token])
        counted(connection, spec.id)
        lease = take(connection, ticket.batch, ticket.token)
        assert lease.attempt == crash + 1
    assert (lease.first, lease.count) == (begin.first + 1, begin.count - 1)
    assert counted(connection, spec.id) == {"PENDING": 298, "RUNNING": 1, "FAILED": 1}
    assert "lost 5 times" in batches.failures(connection, spec.id)[begin.first]
    [record] = read(connection, spec.id, begin.first, 1, record_dtype(OUTPUTS))
    assert (record["state"], record["attempt"]) == (JobState.FAILED, MAX_CRASHES)


def test_crash_of_the_only_job_ends_the_batch(connection: Connection) -> None:
    """A batch whose last job is given up is ended, and FAILED."""
    spec = submit(connection, 1)
    for _ in range(MAX_CRASHES):
        ranges.reclaim(connection, [take(connection).token])
    assert claim(connection) is None
    view = batches.view(connection, spec.id)
    assert (view.state, view.crashes) == ("FAILED", MAX_CRASHES)
    assert view.ended


def test_progress_excuses_crashes(connection: Connection) -> None:
    """Crashes count against the job at the head: once that is done, the count starts anew."""
    submit(connection, 300, slots=1)
    lease = take(connection)
    for _ in range(MAX_CRASHES - 1):
        [ticket] = ranges.reclaim(connection, [lease.token])
        lease = take(connection, ticket.batch, ticket.token)
    lease = after(lease, commit(connection, lease, 1))
    for _ in range(MAX_CRASHES - 1):
        [ticket] = ranges.reclaim(connection, [lease.token])
        lease = take(connection, ticket.batch, ticket.token)
    assert counted(connection, lease.batch)["COMPLETED"] == 1
    assert "FAILED" not in counted(connection, lease.batch)
    ranges.reclaim(connection, [lease.token])
    assert counted(connection, lease.batch)["FAILED"] == 1


def test_giving_back_in_good_order_is_no_crash(connection: Connection) -> None:
    """A range that a stopping worker hands over has not crashed."""
    spec = submit(connection, 1)
    for _ in range(2 * MAX_CRASHES):
        ranges.reclaim(connection, [take(connection).token], crashed=False)
    assert counted(connection, spec.id) == {"PENDING": 1}
    assert take(connection).attempt == 1
