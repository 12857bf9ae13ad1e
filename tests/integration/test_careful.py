"""Ranges that were lost with their worker: job by job for a while, until the one that takes workers down is found."""

import dataclasses

import pytest

from common.ledger import Connection, batches, keys, ranges
from common.ledger.ranges import MAX_CRASHES
from common.ledger.table import read, record_dtype
from tests.integration.ledger_support import (
    after,
    assert_consistent,
    claim,
    commit,
    expire,
    run_all,
    submit,
    take,
)
from tests.support import OUTPUTS, counted


def lose(connection: Connection, lease: ranges.Lease, *, careful: float = 2.0) -> list[ranges.Ticket]:
    """The lease runs out, as when its worker is gone."""
    expire(connection, lease)
    return ranges.reclaim(connection, careful_seconds=careful)


def begin(connection: Connection, lease: ranges.Lease, seconds: float) -> None:
    """Let it be so long ago that the lease was claimed, or last committed."""
    now, fraction = connection.command("TIME")
    since = int(now) + int(fraction) / 1e6 - seconds
    connection.command("HSET", keys.leased_range(lease.token), "since", since)


def test_a_lost_range_is_careful_for_the_given_seconds(ledger: Connection) -> None:
    """Its claims say so until its jobs have taken that long; then it is a range like any other."""
    submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    assert lease.careful == 0
    lose(ledger, lease, careful=2.5)
    lease = take(ledger)
    assert (lease.careful, lease.lost, lease.attempt) == (2.5, 1, 2)
    for left, lost, attempt in ((1.5, 1, 2), (0.5, 1, 2), (0.0, 0, 1)):
        # A clock that was set back makes no job shorter than it says.
        begin(ledger, lease, -3600)
        commit(ledger, lease, 1, seconds=1.0, give_back=True)
        assert_consistent(ledger)
        lease = take(ledger)
        assert (lease.careful, lease.lost, lease.attempt) == (left, lost, attempt)


def test_the_time_of_the_commits_counts(ledger: Connection) -> None:
    """Of quick jobs it is nearly all that goes by: the holder is told what is left, and when it is over."""
    submit(ledger, 100, ranges=[(1, 100)])
    lose(ledger, take(ledger), careful=3600)
    lease = take(ledger)
    begin(ledger, lease, 1900)
    verdict = commit(ledger, lease, 1, seconds=0.00006)
    assert 0 < verdict.careful <= 1700
    lease = lease.after(verdict)
    assert (lease.first, lease.careful, lease.lost, lease.attempt) == (2, verdict.careful, 1, 2)
    # It counts from the last commit on, and not twice.
    begun = commit(ledger, lease, 1, seconds=0.00006)
    assert 0 < begun.careful <= verdict.careful
    again = commit(ledger, lease, 1, seconds=0.00006)
    assert again == dataclasses.replace(begun, tickets=()), "the answer to a commit that is sent again"
    lease = lease.after(begun)
    begin(ledger, lease, 2100)
    verdict = commit(ledger, lease, 1, seconds=0.00006)
    assert verdict.careful == 0
    lease = lease.after(verdict)
    assert (lease.first, lease.careful, lease.lost, lease.attempt) == (4, 0, 0, 1)
    assert_consistent(ledger)


def test_a_range_given_back_in_good_order_is_not_careful(ledger: Connection) -> None:
    """A worker that is stopped leaves no suspicion."""
    submit(ledger, 100, ranges=[(1, 100)])
    ranges.reclaim(ledger, [take(ledger).token], crashed=False)
    lease = take(ledger)
    assert (lease.careful, lease.lost, lease.attempt) == (0, 0, 1)


@pytest.mark.parametrize("progress", [False, True])
def test_the_head_fails_after_five_losses_alone(ledger: Connection, progress: bool) -> None:
    """Five losses in a row at one job end it; a job that was committed between excuses the next one."""
    spec = submit(ledger, 10, ranges=[(1, 10)])
    lease = take(ledger)
    if progress:
        for _ in range(MAX_CRASHES - 1):
            lose(ledger, lease)
            lease = take(ledger)
        lease = after(lease, commit(ledger, lease, 1, seconds=0.1))
    head = lease.first
    for loss in range(1, MAX_CRASHES + 1):
        lose(ledger, lease)
        assert_consistent(ledger)
        assert counted(ledger, spec.id).get("FAILED", 0) == (loss == MAX_CRASHES)
        lease = take(ledger)
    assert lease.first == head + 1
    assert list(batches.failures(ledger, spec.id)) == [head]
    assert f"lost {MAX_CRASHES} times" in batches.failures(ledger, spec.id)[head]
    [record] = read(ledger, spec.id, head, 1, record_dtype(OUTPUTS))
    assert record["state"] == 3
    assert record["attempt"] >= MAX_CRASHES
    ranges.reclaim(ledger, [lease.token], crashed=False)
    run_all(ledger)
    assert counted(ledger, spec.id) == {"COMPLETED": 9, "FAILED": 1}


def test_losses_use_up_no_retries(ledger: Connection) -> None:
    """A job that was lost four times may still fail as often as it is allowed to."""
    spec = submit(ledger, 1, retries=1)
    lease = take(ledger)
    for _ in range(MAX_CRASHES - 1):
        lose(ledger, lease)
        lease = take(ledger)
    assert (lease.attempt, lease.tries) == (MAX_CRASHES, 0)
    commit(ledger, lease, 1, retried=[1])
    assert counted(ledger, spec.id) == {"PENDING": 1}


def test_a_lost_range_goes_first(ledger: Connection) -> None:
    """It is claimed before older ranges of its batch, also with a ticket for another one."""
    submit(ledger, 30, ranges=[(1, 10), (11, 10), (21, 10)])
    lease = take(ledger)
    [other] = [t for t in ranges.open_ranges(ledger, lease.batch) if t.first == 21]
    lose(ledger, lease)
    assert take(ledger, lease.batch, other.token).first == 1


def test_a_holder_makes_way_for_a_lost_range(ledger: Connection) -> None:
    """At its next commit a slot gives its rest back, so that the lost jobs need not wait for a whole range."""
    submit(ledger, 30, ranges=[(1, 10), (11, 10), (21, 10)])
    lost, held = take(ledger), take(ledger)
    lose(ledger, lost)
    assert commit(ledger, held, 1).word == "released"
    assert take(ledger).first == lost.first


def test_parts_of_a_lost_range_are_careful_too(ledger: Connection) -> None:
    """Whatever is cut off may hold the job that takes workers down."""
    submit(ledger, 10, ranges=[(1, 10)])
    lose(ledger, take(ledger))
    found = []
    while (lease := claim(ledger, most=5)) is not None:
        found.append((lease.count, lease.careful, lease.lost))
    assert found == [(5, 2.0, 1), (5, 2.0, 1)]
