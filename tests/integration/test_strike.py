"""A job that takes its process down: it alone pays, the others of its range go on."""

import pytest

from common.batch import JobState, Reason
from common.ledger import Connection, batches, keys, ranges
from common.ledger.table import read, record_dtype
from tests.integration.ledger_support import (
    after,
    assert_consistent,
    claim,
    commit,
    run_all,
    spans,
    states,
    strike,
    submit,
    take,
)
from tests.support import OUTPUTS, counted, dump


@pytest.mark.parametrize(("job", "rest"), [(1, [(2, 9)]), (4, [(1, 3), (5, 6)]), (10, [(1, 9)])])
def test_a_crash_isolates_the_job(ledger: Connection, job: int, rest: list[tuple[int, int]]) -> None:
    """The job waits alone, those before and behind it wait in ranges of their own, all of them first in the line."""
    spec = submit(ledger, 20, ranges=[(1, 10), (11, 10)])
    lease = take(ledger)
    struck, ended, tokens = strike(ledger, lease, job)
    assert (struck, ended) == (True, False)
    waiting = spans(ledger, keys.ranges(spec.id))
    assert sorted(waiting[:-1]) == sorted([(job, 1), *rest])
    assert waiting[-1] == (11, 10)
    assert len(tokens) == len(rest) + 1
    assert counted(ledger, spec.id) == {"PENDING": 20}
    assert batches.view(ledger, spec.id).crashes == 1
    assert_consistent(ledger)
    assert sorted(run_all(ledger)) == list(range(1, 21))


def test_a_crash_limit_ends_the_job_and_nothing_else(ledger: Connection) -> None:
    """After so many crashes the job is FAILED for CrashLimit, at that attempt; the others complete at their first."""
    spec = submit(ledger, 5, ranges=[(1, 5)])
    token = take(ledger).token
    ranges.reclaim(ledger, [token], crashed=False)
    for crash in range(1, 4):
        lease = take_with(ledger, 3)
        assert lease.attempt == crash
        strike(ledger, lease, 3, limit=3)
        assert_consistent(ledger)
        assert counted(ledger, spec.id).get("FAILED", 0) == (crash == 3)
    assert sorted(run_all(ledger)) == [1, 2, 4, 5]
    assert states(ledger, spec.id) == ["COMPLETED", "COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    records = read(ledger, spec.id, 1, 5, record_dtype(OUTPUTS))
    assert records["attempt"].tolist() == [1, 1, 3, 1, 1]
    assert records["reason"][2] == Reason.CrashLimit
    assert records["signal"][2] == 9
    assert batches.failures(ledger, spec.id) == {3: "it died"}
    assert batches.view(ledger, spec.id).ended


def take_with(connection: Connection, job: int) -> ranges.Lease:
    """Claim until the range has this job; give the others back."""
    held = []
    while True:
        lease = take(connection)
        if lease.first <= job < lease.first + lease.count:
            ranges.reclaim(connection, held, crashed=False) if held else None
            return lease
        held.append(lease.token)


@pytest.mark.parametrize("state", [JobState.TIMEOUT, JobState.OUT_OF_MEMORY])
def test_a_kill_for_a_limit_ends_the_job_at_once(ledger: Connection, state: JobState) -> None:
    """It is no crash and gets no second try."""
    spec = submit(ledger, 3, ranges=[(1, 3)])
    assert strike(ledger, take(ledger), 2, state=state)[:2] == (True, False)
    assert counted(ledger, spec.id) == {"PENDING": 2, state.name: 1}
    assert batches.view(ledger, spec.id).crashes == 0
    assert_consistent(ledger)
    assert sorted(run_all(ledger)) == [1, 3]
    assert states(ledger, spec.id)[1] == state.name


def test_a_strike_that_ends_the_last_job_ends_the_batch(ledger: Connection) -> None:
    """Whoever strikes hears that the results are to be written."""
    spec = submit(ledger, 1)
    assert strike(ledger, take(ledger), 1, state=JobState.TIMEOUT) == (True, True, ())
    assert batches.view(ledger, spec.id).state == "FAILED"


def test_a_stale_strike_changes_nothing(ledger: Connection) -> None:
    """A lease that was lost, one that never was, and a job that is not in the range."""
    submit(ledger, 20, ranges=[(1, 10), (11, 10)])
    lost, held = take(ledger), take(ledger)
    ranges.reclaim(ledger, [lost.token])
    held = after(held, commit(ledger, held, 2))
    before = dump(ledger)
    assert not strike(ledger, lost, lost.first)[0]
    assert not strike(ledger, ranges.Lease("nonsense", 1, 1, 1), 1)[0]
    assert not strike(ledger, held, held.first - 1)[0]
    assert not strike(ledger, held, held.first + held.count)[0]
    assert dump(ledger) == before


def test_a_second_strike_is_stale(ledger: Connection) -> None:
    """The successor and the keeper may both bury a slot: the job dies once."""
    spec = submit(ledger, 5, ranges=[(1, 5)])
    lease = take(ledger)
    assert strike(ledger, lease, 2)[0]
    before = dump(ledger)
    assert strike(ledger, lease, 2) == (False, False, ())
    assert dump(ledger) == before
    assert batches.view(ledger, spec.id).crashes == 1


def test_a_commit_after_the_strike_is_refused(ledger: Connection) -> None:
    """A process that was believed dead and is not does not make its results true."""
    spec = submit(ledger, 5, ranges=[(1, 5)])
    lease = take(ledger)
    strike(ledger, lease, 2)
    assert commit(ledger, lease, 5).word == "stale"
    assert counted(ledger, spec.id) == {"PENDING": 5}


def test_crashes_of_one_job_do_not_count_against_the_next(ledger: Connection) -> None:
    """Each job of a bad range dies as often as it may, not the whole range together."""
    spec = submit(ledger, 4, ranges=[(1, 4)])
    strikes = 0
    while (lease := claim(ledger)) is not None:
        strike(ledger, lease, lease.first, limit=3)
        strikes += 1
        assert_consistent(ledger)
    assert strikes == 4 * 3
    assert counted(ledger, spec.id) == {"FAILED": 4}
    assert batches.view(ledger, spec.id).crashes == 4 * 3


def test_retries_are_not_used_up_by_crashes(ledger: Connection) -> None:
    """A crash is one more attempt; how often the job may raise stays."""
    submit(ledger, 1, retries=2)
    strike(ledger, take(ledger), 1)
    lease = take(ledger)
    assert (lease.attempt, lease.tries) == (2, 0)


def test_giving_back_in_good_order_fails_no_job_that_crashed_before(ledger: Connection) -> None:
    """A crash limit of ten means ten crashes, also when its worker is stopped after the seventh."""
    spec = submit(ledger, 1, crash_limit=10)
    for _ in range(7):
        strike(ledger, take(ledger), 1, limit=10)
    ranges.reclaim(ledger, [take(ledger).token], crashed=False)
    assert counted(ledger, spec.id) == {"PENDING": 1}
