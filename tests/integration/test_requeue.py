"""Jobs that ended are run again, in the ledger: who they are stays, and how often they were tried."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.batch import JobState, Reason
from common.explain import explain_job
from common.ledger import Connection, batches, control, keys, ranges, table
from common.ledger.control import Run
from common.ledger.ranges import Verdict
from common.ledger.table import SEGMENT_JOBS, read, record_dtype
from common.requeue import Plan
from common.statistics import moments
from tests.integration.ledger_support import (
    after,
    assert_consistent,
    claim,
    commit,
    finished,
    make_due,
    requeue,
    run_all,
    states,
    strike,
    submit,
    take,
)
from tests.support import OUTPUTS, counted, dump, slice_of

S = JobState


@pytest.mark.parametrize("state", [S.FAILED, S.TIMEOUT, S.OUT_OF_MEMORY, S.CANCELLED, S.ABORTED])
def test_each_state_can_be_run_again(ledger: Connection, state: JobState) -> None:
    """The ended batch is open again, with these jobs PENDING and one attempt more, and ends a second time."""
    spec = submit(ledger, 5, ranges=[(1, 5)], max_fails=0 if state is S.ABORTED else None)
    if state is S.CANCELLED:
        control.cancel(ledger, spec.id, 3, 4)
    elif state is S.ABORTED:
        commit(ledger, take(ledger), 2, failed=[2])
    elif state is S.FAILED:
        commit(ledger, take(ledger), 5, failed=[3, 4])
    else:
        strike(ledger, take(ledger), 3, state=state)
    run_all(ledger)
    which = [index for index, name in enumerate(states(ledger, spec.id), 1) if name == state.name]
    recorded = state not in (S.CANCELLED, S.ABORTED)
    tickets = requeue(ledger, spec.id, [(which[0], len(which), state, int(recorded))])
    assert [(t.first, t.count) for t in tickets or []] == [(which[0], len(which))]
    view = batches.view(ledger, spec.id)
    assert (view.ended, view.finished, view.counters[state]) == (None, None, 0)
    assert_consistent(ledger)
    lease = take(ledger)
    assert (lease.first, lease.count, lease.attempt, lease.tries) == (which[0], len(which), 1 + recorded, 0)
    assert commit(ledger, lease, lease.count).ended
    assert counted(ledger, spec.id).get("COMPLETED", 0) == (4 if state is S.ABORTED else 5)
    found = read(ledger, spec.id, which[0], len(which), record_dtype(OUTPUTS))
    assert set(found["attempt"]) == {1 + recorded}


def test_the_attempts_go_on_counting(ledger: Connection) -> None:
    """Second, third and fourth time: each is one attempt more, and leaves its event."""
    spec = submit(ledger, 1)
    for attempt in range(1, 5):
        lease = take(ledger)
        assert lease.attempt == attempt
        commit(ledger, lease, 1, failed=[1])
        if attempt < 4:
            assert requeue(ledger, spec.id, [(1, 1, S.FAILED, attempt)])
            assert batches.failures(ledger, spec.id) == {}
    kinds = [event["kind"] for event in control.events(ledger, spec.id)]
    assert kinds == ["requeued, was FAILED"] * 3


def test_a_part_of_a_running_batch(ledger: Connection) -> None:
    """Failed jobs go back while the others run on."""
    spec = submit(ledger, 20, ranges=[(1, 10), (11, 10)])
    held, lease = take(ledger), take(ledger)
    commit(ledger, lease, 10, failed=[12, 13, 17])
    assert requeue(ledger, spec.id, [(12, 2, S.FAILED, 1)])
    assert counted(ledger, spec.id) == {"COMPLETED": 7, "FAILED": 1, "PENDING": 11, "RUNNING": 1}
    assert_consistent(ledger)
    commit(ledger, held, 10)
    assert run_all(ledger) == [12, 13]
    assert batches.view(ledger, spec.id).ended
    assert batches.failures(ledger, spec.id).keys() == {17}


def test_a_part_of_what_was_cancelled(ledger: Connection) -> None:
    """The closed interval is cut around what runs again; what stays cancelled stays so."""
    spec = submit(ledger, 20, ranges=[(1, 20)])
    control.cancel(ledger, spec.id)
    runs: list[Run] = [(3, 2, S.CANCELLED, 0), (10, 1, S.CANCELLED, 0), (20, 1, S.CANCELLED, 0)]
    assert len(requeue(ledger, spec.id, runs) or []) == 3
    assert_consistent(ledger)
    assert run_all(ledger) == [3, 4, 10, 20]
    assert [i for i, name in enumerate(states(ledger, spec.id), 1) if name == "COMPLETED"] == [3, 4, 10, 20]


WRONG: dict[str, list[Run]] = {
    "completed, expected failed": [(1, 1, S.FAILED, 1)],
    "failed, expected timeout": [(2, 1, S.TIMEOUT, 1)],
    "one of two": [(2, 2, S.FAILED, 1)],
    "the second run": [(2, 1, S.FAILED, 1), (4, 1, S.CANCELLED, 0)],
    "cancelled, expected aborted": [(5, 1, S.ABORTED, 0)],
    "more than was cancelled": [(5, 3, S.CANCELLED, 0)],
    "pending": [(7, 1, S.CANCELLED, 0)],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_has_moved_changes_nothing(ledger: Connection, name: str) -> None:
    """One job that is not as expected, and not one byte in Redis differs."""
    spec = submit(ledger, 10, ranges=[(1, 4), (5, 6)])
    commit(ledger, take(ledger), 4, failed=[2])
    control.cancel(ledger, spec.id, 5, 6)
    before = dump(ledger)
    assert control.requeue(ledger, spec.id, WRONG[name]) is None
    assert dump(ledger) == before


def test_an_unknown_batch_is_not_made(ledger: Connection) -> None:
    """Nothing comes of a requeue of nothing."""
    assert control.requeue(ledger, 99, [(1, 1, S.FAILED, 1)]) is None
    assert dump(ledger) == {}


def test_twice_is_moved(ledger: Connection) -> None:
    """The second of two people who run the same jobs again is told so."""
    spec = submit(ledger, 1)
    commit(ledger, take(ledger), 1, failed=[1])
    assert requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)])
    before = dump(ledger)
    assert requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)]) is None
    assert dump(ledger) == before


def test_completed_jobs_take_their_part_of_the_statistics_with_them(ledger: Connection) -> None:
    """A result that was lost is run again, and is not counted twice."""
    spec = submit(ledger, 10, ranges=[(1, 3), (4, 3), (7, 4)])
    for value in (1.0, 2.0, 4.0):
        lease = take(ledger)
        commit(ledger, lease, lease.count, value=value)
    stay = np.array([1.0] * 3 + [4.0] * 4)
    kept = {"sum": moments(stay), "mean": moments(stay / 10)}
    assert requeue(ledger, spec.id, [(4, 3, S.COMPLETED, 1)], kept)
    assert batches.statistics(ledger, spec.id, OUTPUTS) == kept
    assert_consistent(ledger)
    commit(ledger, take(ledger), 3, value=2.0)
    assert batches.statistics(ledger, spec.id, OUTPUTS)["sum"].n == 10
    assert batches.view(ledger, spec.id).ended


def test_completed_jobs_of_an_open_batch_are_not_run_again(ledger: Connection) -> None:
    """Its statistics still move, so those of what stays cannot be known."""
    spec = submit(ledger, 2)
    commit(ledger, take(ledger), 1)
    before = dump(ledger)
    assert requeue(ledger, spec.id, [(1, 1, S.COMPLETED, 1)], {}) is None
    assert dump(ledger) == before


def test_all_completed_jobs_again_leave_no_statistics(ledger: Connection) -> None:
    """There is nothing left to speak of."""
    spec = submit(ledger, 2, ranges=[(1, 2)])
    commit(ledger, take(ledger), 2)
    assert requeue(ledger, spec.id, [(1, 2, S.COMPLETED, 1)], {})
    assert not ledger.command("EXISTS", keys.statistics(spec.id))


def test_while_its_results_are_written_it_is_moved(ledger: Connection) -> None:
    """Whoever writes them has read the records: not one byte in Redis differs until he is done."""
    spec = submit(ledger, 2, ranges=[(1, 2)])
    commit(ledger, take(ledger), 2, failed=[1])
    before = dump(ledger)
    assert control.requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)]) is None
    assert dump(ledger) == before
    finished(ledger, spec.id)
    assert control.requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)])


def test_what_there_was_is_told_however_many_they_are(ledger: Connection) -> None:
    """One event for all of a step with one state and reason: each job's former end, and the error that was kept."""
    spec = submit(ledger, 3000, ranges=[(1, 3000)])
    control.cancel(ledger, spec.id, 2000, 2001)
    lease = take(ledger)
    while True:
        failed = [index for index in range(lease.first, lease.first + lease.count) if index % 2]
        if commit(ledger, lease, lease.count, failed=failed).ended:
            break
        lease = take(ledger)
    runs: list[Run] = [(i, 1, S.FAILED, 1) for i in range(1, 3000, 2) if i != 2001]
    assert requeue(ledger, spec.id, [*runs, (2000, 2, S.CANCELLED, 0)])
    kinds = [event["kind"] for event in control.events(ledger, spec.id)]
    assert kinds == ["CANCELLED ", "requeued, was FAILED", "requeued, was CANCELLED"]
    told = control.events(ledger, spec.id)[1]
    assert [index for index in range(1, 3001) if control.happened_to(told, index)] == [first for first, *_ in runs]
    assert (told["first"], told["count"]) == (1, 2999)
    assert batches.failures(ledger, spec.id) == {}
    run_all(ledger)
    assert "requeued, was FAILED: ValueError: made by hand" in explain_job(ledger, spec.id, 1).details[-1]
    assert explain_job(ledger, spec.id, 2999).details[-1].endswith("requeued, was FAILED"), "only 1000 errors are kept"
    assert explain_job(ledger, spec.id, 2000).details[-1].endswith("requeued, was CANCELLED")
    assert not any("requeued" in line for line in explain_job(ledger, spec.id, 2).details)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("Traceback:\n  File x\nKeyError: 'a'\n\n", "KeyError: 'a'"),
        ("one line", "one line"),
        ("  \n", ""),
        ("é" * 150, "é" * 100 + "…"),
        ("x" + "é" * 150, "x" + "é" * 99 + "…"),
        ("y" * 200, "y" * 200),
    ],
)
def test_the_last_line_of_an_error_is_told(ledger: Connection, error: str, told: str) -> None:
    """Bounded, and cut between two characters."""
    spec = submit(ledger, 1)
    work = replace(slice_of(1, [1.0], failed=[1]), failures={1: error})
    ranges.commit(ledger, take(ledger), work, lease_seconds=60, slice_seconds=1)
    assert requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)])
    [event] = control.events(ledger, spec.id)
    assert event["errors"] == {"1": told}


def test_the_reason_is_told(ledger: Connection) -> None:
    """Of a record by its code, of what was closed by its name; each has its event."""
    spec = submit(ledger, 4, ranges=[(1, 4)], max_fails=0)
    strike(ledger, take(ledger), 2, state=S.TIMEOUT)
    runs: list[Run] = [(3, 2, S.ABORTED, 0), (1, 1, S.ABORTED, 0), (2, 1, S.TIMEOUT, 1)]
    assert requeue(ledger, spec.id, runs)
    found = {event["kind"].split()[-1]: event.get("reason") for event in control.events(ledger, spec.id)[-2:]}
    assert found == {"ABORTED": "MaxFails", "TIMEOUT": "TimeLimit"}
    assert "requeued, was TIMEOUT (TimeLimit): it died" in explain_job(ledger, spec.id, 2).details[-1]
    assert "requeued, was ABORTED (MaxFails)" in explain_job(ledger, spec.id, 4).details[-1]


def test_a_history_that_was_not_kept_is_said_to_be(ledger: Connection) -> None:
    """A second attempt of which nothing is known any more; a first one has no history."""
    spec = submit(ledger, 2, ranges=[(1, 2)])
    commit(ledger, take(ledger), 2, failed=[1])
    assert requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)])
    run_all(ledger)
    ledger.command("DEL", keys.events(spec.id))
    assert explain_job(ledger, spec.id, 1).details[-1] == "Earlier history was not kept."
    assert "Earlier history was not kept." not in explain_job(ledger, spec.id, 2).details


@pytest.mark.parametrize("how", ["cancel", "cancel RUNNING", "abort", "max_fails", "fails itself"])
def test_what_was_cut_off_while_it_ran_has_had_its_attempt(ledger: Connection, how: str) -> None:
    """Only that job: it is tried a second time, and those behind it, which never ran, a first."""
    spec = submit(ledger, 20, ranges=[(1, 10), (11, 10)], max_fails=0 if "fail" in how else None)
    held, lease = take(ledger), take(ledger)
    commit(ledger, lease, 2)
    ranges.renew(ledger, {held.token: 4, lease.token: 13 if how == "fails itself" else 0}, lease_seconds=60)
    if how == "max_fails":
        strike(ledger, after(lease, Verdict("continue", first=13, count=8)), 13, state=S.TIMEOUT)
    elif how == "fails itself":
        commit(ledger, replace(lease, first=13, count=8), 1, failed=[13])
    elif how == "abort":
        control.abort(ledger, spec.id, Reason.StopRule)
    else:
        control.cancel(ledger, spec.id, state=how.partition(" ")[2])
    assert_consistent(ledger)
    had = {4} | ({13} if how in ("cancel", "abort", "cancel RUNNING") else set())
    dtype = record_dtype(OUTPUTS)
    page = table.page(ledger, spec.id, 1, 20, dtype)
    closed = np.isin(page["state"], [S.CANCELLED, S.ABORTED])
    assert set(np.flatnonzero(closed & (page["attempt"] == 1)) + 1) == had
    assert set(page["attempt"][closed]) <= {0, 1}
    assert "while it ran" in explain_job(ledger, spec.id, 4).details[-1]
    run_all(ledger)
    ended = [S.CANCELLED, S.ABORTED, S.FAILED, S.TIMEOUT]
    plan = Plan(ledger, batches.view(ledger, spec.id), Path(), ended, missing=False)
    assert requeue(ledger, spec.id, list(plan.runs())) is not None
    assert_consistent(ledger)
    while (again := claim(ledger)) is not None:
        commit(ledger, again, again.count)
    assert set(np.flatnonzero(read(ledger, spec.id, 1, 20, dtype)["attempt"] == 2) + 1) == {4, 13}


def test_what_was_cancelled_in_a_second_try_is_at_its_third(ledger: Connection) -> None:
    """Of its first try nothing is shown as if it were of the second."""
    spec = submit(ledger, 1, retries=3)
    commit(ledger, take(ledger), 1, retried=[1])
    make_due(ledger, spec.id)
    ranges.release(ledger)
    assert take(ledger).attempt == 2
    control.cancel(ledger, spec.id)
    [record] = table.page(ledger, spec.id, 1, 1, record_dtype(OUTPUTS))
    assert (record["state"], record["attempt"], record["started"]) == (S.CANCELLED, 2, 0)
    assert requeue(ledger, spec.id, [(1, 1, S.CANCELLED, 2)])
    lease = take(ledger)
    assert (lease.attempt, lease.tries) == (3, 0)


def test_scattered_closed_jobs_are_taken_out_in_any_order(ledger: Connection) -> None:
    """Several of one interval, of several, at their ends and in their middle; the rest stays closed, once."""
    spec = submit(ledger, 30, ranges=[(1, 30)])
    control.cancel_spans(ledger, spec.id, [(1, 5), (8, 8), (10, 20), (25, 30)])
    which = [(12, 1), (1, 1), (5, 1), (8, 1), (18, 3), (14, 2), (30, 1), (25, 1)]
    assert requeue(ledger, spec.id, [(first, count, S.CANCELLED, 0) for first, count in which]) is not None
    again = {index for first, count in which for index in range(first, first + count)}
    left = {*range(1, 6), 8, *range(10, 21), *range(25, 31)} - again
    assert {i for i, name in enumerate(states(ledger, spec.id), 1) if name == "CANCELLED"} == left
    assert_consistent(ledger)
    before = dump(ledger)
    for wrong in ((11, 2), (19, 1), (26, 5)):
        assert control.requeue(ledger, spec.id, [(*wrong, S.CANCELLED, 0)]) is None
    assert dump(ledger) == before


def test_runs_on_both_sides_of_a_segment_border(ledger: Connection) -> None:
    """Each run lies in one table segment; together they are one requeue."""
    jobs = SEGMENT_JOBS + 10
    spec = submit(ledger, jobs, ranges=[(1, SEGMENT_JOBS - 5), (SEGMENT_JOBS - 4, 15)])
    control.cancel(ledger, spec.id, 1, SEGMENT_JOBS - 5)
    commit(ledger, take(ledger), 15, failed=range(SEGMENT_JOBS - 1, SEGMENT_JOBS + 3))
    runs: list[Run] = [(SEGMENT_JOBS - 1, 2, S.FAILED, 1), (SEGMENT_JOBS + 1, 2, S.FAILED, 1)]
    assert requeue(ledger, spec.id, runs)
    assert_consistent(ledger)
    assert run_all(ledger) == [SEGMENT_JOBS - 1, SEGMENT_JOBS, SEGMENT_JOBS + 1, SEGMENT_JOBS + 2]


def test_a_requeue_obeys_hold_and_throttle(ledger: Connection) -> None:
    """A batch that is held or full hands out no ticket for what runs again."""
    spec = submit(ledger, 4, ranges=[(1, 1), (2, 1), (3, 2)], throttle=1)
    commit(ledger, take(ledger), 1, failed=[1])
    take(ledger)
    assert requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)]) == []
    assert claim(ledger) is None
