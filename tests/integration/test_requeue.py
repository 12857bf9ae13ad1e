"""Jobs that ended are run again, in the ledger: who they are stays, and how often they were tried."""

import numpy as np
import pytest

from common.batch import JobState
from common.ledger import Connection, batches, control, keys
from common.ledger.control import Run
from common.ledger.table import SEGMENT_JOBS, read, record_dtype
from common.statistics import moments
from tests.integration.ledger_support import (
    assert_consistent,
    claim,
    commit,
    run_all,
    states,
    strike,
    submit,
    take,
)
from tests.support import OUTPUTS, counted, dump

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
    batches.finished(ledger, spec.id)
    tickets = control.requeue(ledger, spec.id, [(which[0], len(which), state, int(recorded))])
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
            assert control.requeue(ledger, spec.id, [(1, 1, S.FAILED, attempt)])
            assert batches.failures(ledger, spec.id) == {}
    kinds = [event["kind"] for event in control.events(ledger, spec.id)]
    assert kinds == ["requeued, was FAILED"] * 3


def test_a_part_of_a_running_batch(ledger: Connection) -> None:
    """Failed jobs go back while the others run on."""
    spec = submit(ledger, 20, ranges=[(1, 10), (11, 10)])
    held, lease = take(ledger), take(ledger)
    commit(ledger, lease, 10, failed=[12, 13, 17])
    assert control.requeue(ledger, spec.id, [(12, 2, S.FAILED, 1)])
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
    assert len(control.requeue(ledger, spec.id, runs) or []) == 3
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
    assert control.requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)])
    before = dump(ledger)
    assert control.requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)]) is None
    assert dump(ledger) == before


def test_completed_jobs_take_their_part_of_the_statistics_with_them(ledger: Connection) -> None:
    """A result that was lost is run again, and is not counted twice."""
    spec = submit(ledger, 10, ranges=[(1, 3), (4, 3), (7, 4)])
    for value in (1.0, 2.0, 4.0):
        lease = take(ledger)
        commit(ledger, lease, lease.count, value=value)
    stay = np.array([1.0] * 3 + [4.0] * 4)
    kept = {"sum": moments(stay), "mean": moments(stay / 10)}
    assert control.requeue(ledger, spec.id, [(4, 3, S.COMPLETED, 1)], kept)
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
    assert control.requeue(ledger, spec.id, [(1, 1, S.COMPLETED, 1)], {}) is None
    assert dump(ledger) == before


def test_all_completed_jobs_again_leave_no_statistics(ledger: Connection) -> None:
    """There is nothing left to speak of."""
    spec = submit(ledger, 2, ranges=[(1, 2)])
    commit(ledger, take(ledger), 2)
    assert control.requeue(ledger, spec.id, [(1, 2, S.COMPLETED, 1)], {})
    assert not ledger.command("EXISTS", keys.statistics(spec.id))


def test_runs_on_both_sides_of_a_segment_border(ledger: Connection) -> None:
    """Each run lies in one table segment; together they are one requeue."""
    jobs = SEGMENT_JOBS + 10
    spec = submit(ledger, jobs, ranges=[(1, SEGMENT_JOBS - 5), (SEGMENT_JOBS - 4, 15)])
    control.cancel(ledger, spec.id, 1, SEGMENT_JOBS - 5)
    commit(ledger, take(ledger), 15, failed=range(SEGMENT_JOBS - 1, SEGMENT_JOBS + 3))
    runs: list[Run] = [(SEGMENT_JOBS - 1, 2, S.FAILED, 1), (SEGMENT_JOBS + 1, 2, S.FAILED, 1)]
    assert control.requeue(ledger, spec.id, runs)
    assert_consistent(ledger)
    assert run_all(ledger) == [SEGMENT_JOBS - 1, SEGMENT_JOBS, SEGMENT_JOBS + 1, SEGMENT_JOBS + 2]


def test_a_requeue_obeys_hold_and_throttle(ledger: Connection) -> None:
    """A batch that is held or full hands out no ticket for what runs again."""
    spec = submit(ledger, 4, ranges=[(1, 1), (2, 1), (3, 2)], throttle=1)
    commit(ledger, take(ledger), 1, failed=[1])
    take(ledger)
    assert control.requeue(ledger, spec.id, [(1, 1, S.FAILED, 1)]) == []
    assert claim(ledger) is None
