"""A batch that fails too often is given up: what has not ended is ABORTED, and nobody works on it any more."""

import pytest

from common.batch import JobState, Reason
from common.ledger import Connection, batches, control, keys, ranges, table
from common.ledger.table import record_dtype
from common.options import Options
from tests.integration.ledger_support import (
    after,
    assert_consistent,
    claim,
    commit,
    make_due,
    requeue,
    states,
    strike,
    submit,
    take,
)
from tests.support import OUTPUTS, counted


def test_one_more_than_allowed_ends_the_batch(ledger: Connection) -> None:
    """With max_fails 2 the third failure ends it, whichever ranges wait, are parked or are leased."""
    spec = submit(ledger, 40, ranges=[(1, 10), (11, 10), (21, 10), (31, 10)], max_fails=2, retries=1)
    one, two = take(ledger), take(ledger)
    two = after(two, commit(ledger, two, 3, retried=[12]))
    one = after(one, commit(ledger, one, 4, failed=[1, 3]))
    assert counted(ledger, spec.id) == {"COMPLETED": 4, "FAILED": 2, "PENDING": 32, "RUNNING": 2}
    assert_consistent(ledger)
    verdict = commit(ledger, one, 2, failed=[6])
    assert (verdict.word, verdict.ended) == ("done", True)
    assert counted(ledger, spec.id) == {"COMPLETED": 5, "FAILED": 3, "ABORTED": 32}
    assert_consistent(ledger)
    assert commit(ledger, two, 1).word == "stale"
    assert claim(ledger) is None
    assert ledger.command("ZCARD", keys.LEASES) == 0
    page = table.page(ledger, spec.id, 1, 40, record_dtype(OUTPUTS))
    aborted = page["state"] == JobState.ABORTED
    assert (page["reason"][aborted] == Reason.MaxFails).all()
    assert batches.view(ledger, spec.id).state == "FAILED"


def test_the_last_job_of_a_range_may_be_the_one_too_many(ledger: Connection) -> None:
    """The range that is done with it is closed like any other."""
    spec = submit(ledger, 6, ranges=[(1, 3), (4, 3)], max_fails=0)
    assert commit(ledger, take(ledger), 3, failed=[3]).ended
    assert counted(ledger, spec.id) == {"COMPLETED": 2, "FAILED": 1, "ABORTED": 3}


def test_the_last_job_of_all_aborts_nothing(ledger: Connection) -> None:
    """There is nothing left to give up."""
    spec = submit(ledger, 3, ranges=[(1, 3)], max_fails=0)
    assert commit(ledger, take(ledger), 3, failed=[1, 2, 3]).ended
    assert counted(ledger, spec.id) == {"FAILED": 3}


@pytest.mark.parametrize(("text", "jobs", "most"), [("10", 50, 10), ("0", 9, 0), ("5%", 200, 10), ("1.5%", 1000, 15),
                                                     ("1%", 99, 0), ("100%", 7, 7), (None, 5, None)])  # fmt: skip
def test_a_number_or_a_part_of_the_jobs(text: str | None, jobs: int, most: int | None) -> None:
    """A part is rounded down."""
    assert Options(max_fails=text).most_fails(jobs) == most


@pytest.mark.parametrize(("text", "jobs"), [("3", 10), ("30%", 10)])
def test_exactly_as_many_as_allowed_are_endured(ledger: Connection, text: str, jobs: int) -> None:
    """Three of ten may fail, as a number or as a part; the fourth may not."""
    spec = submit(ledger, jobs, max_fails=Options(max_fails=text).most_fails(jobs))
    for index in range(1, 5):
        lease = take(ledger)
        commit(ledger, lease, 1, failed=[lease.first])
        assert counted(ledger, spec.id).get("ABORTED", 0) == (jobs - 4 if index == 4 else 0)


def test_retries_are_no_failures(ledger: Connection) -> None:
    """What is tried again has not failed yet."""
    spec = submit(ledger, 3, max_fails=0, retries=1)
    for _ in range(3):
        lease = take(ledger)
        commit(ledger, lease, 1, retried=[lease.first])
    assert counted(ledger, spec.id) == {"PENDING": 3}
    make_due(ledger, spec.id)
    ranges.release(ledger)
    lease = take(ledger)
    commit(ledger, lease, 1, failed=[lease.first])
    assert counted(ledger, spec.id) == {"FAILED": 1, "ABORTED": 2}


@pytest.mark.parametrize("how", ["timeout", "crash", "lost"])
def test_every_way_to_fail_counts(ledger: Connection, how: str) -> None:
    """A job killed for its limit, one that crashed too often and one lost too often are failures like any other."""
    spec = submit(ledger, 9, ranges=[(1, 4), (5, 5)], max_fails=0)
    while not batches.view(ledger, spec.id).ended:
        lease = take(ledger)
        if how == "timeout":
            strike(ledger, lease, lease.first + 1, state=JobState.TIMEOUT)
        elif how == "crash":
            strike(ledger, lease, lease.first, limit=2)
        else:
            ranges.reclaim(ledger, [lease.token])
        assert_consistent(ledger)
    wanted = "TIMEOUT" if how == "timeout" else "FAILED"
    assert counted(ledger, spec.id) == {wanted: 1, "ABORTED": 8}
    assert states(ledger, spec.id).count(wanted) == 1


def test_other_batches_go_on(ledger: Connection) -> None:
    """Their ranges, leases and counters are not touched."""
    other = submit(ledger, 4, ranges=[(1, 2), (3, 2)])
    held = take(ledger, other.id)
    spec = submit(ledger, 4, ranges=[(1, 4)], max_fails=0, priority=1)
    commit(ledger, take(ledger, spec.id), 1, failed=[1])
    assert counted(ledger, other.id) == {"PENDING": 3, "RUNNING": 1}
    assert commit(ledger, held, 2).word == "done"


def test_cancelled_jobs_are_no_failures(ledger: Connection) -> None:
    """What a person took away does not count against the batch."""
    spec = submit(ledger, 10, ranges=[(1, 10)], max_fails=1)
    control.cancel(ledger, spec.id, 5, 8)
    commit(ledger, take(ledger), 1, failed=[1])
    assert counted(ledger, spec.id).get("ABORTED", 0) == 0


def test_a_higher_limit_lets_what_was_given_up_run(ledger: Connection) -> None:
    """Requeued under the old limit it is given up again by the next commit; under a higher one it runs to its end."""
    spec = submit(ledger, 6, ranges=[(1, 6)], max_fails=0)
    commit(ledger, take(ledger), 1, failed=[1])
    for most, wanted in ((0, {"FAILED": 1, "COMPLETED": 1, "ABORTED": 4}), (1, {"FAILED": 1, "COMPLETED": 5})):
        control.adjust(ledger, spec.id, "max_fails", most)
        assert batches.view(ledger, spec.id).max_fails == most
        first = states(ledger, spec.id).index("ABORTED") + 1
        assert requeue(ledger, spec.id, [(first, 7 - first, JobState.ABORTED, 0)])
        assert_consistent(ledger)
        while (lease := claim(ledger)) is not None:
            commit(ledger, lease, 1)
            if batches.view(ledger, spec.id).ended:
                break
            ranges.reclaim(ledger, [lease.token], crashed=False)
        assert counted(ledger, spec.id) == wanted


def test_a_limit_that_is_exceeded_already_ends_the_batch(ledger: Connection) -> None:
    """Not only once another job fails."""
    spec = submit(ledger, 6, ranges=[(1, 6)])
    lease = take(ledger)
    commit(ledger, lease, 2, failed=[1, 2])
    control.adjust(ledger, spec.id, "max_fails", 2)
    assert not batches.view(ledger, spec.id).ended
    control.adjust(ledger, spec.id, "max_fails", 1)
    assert counted(ledger, spec.id) == {"FAILED": 2, "ABORTED": 4}
    assert batches.view(ledger, spec.id).ended
