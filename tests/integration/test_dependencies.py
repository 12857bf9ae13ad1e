"""Batches that wait for others: four kinds, chains, reruns that decide again, and what can never be met."""

import pytest

from common.batch import BatchSpec, JobState, Reason
from common.ledger import Connection, batches, control, ranges
from tests.integration.ledger_support import (
    assert_consistent,
    claim,
    commit,
    ids,
    requeue,
    run_all,
    states,
    strike,
    submit,
    take,
)
from tests.support import counted


def end(connection: Connection, spec: BatchSpec, how: str) -> None:
    """Bring a batch to an end: "ok", or bad in one of the ways there are."""
    if how == "ok":
        run_all(connection)
    elif how == "failed":
        run_all(connection, failed=[1])
    elif how == "timeout":
        strike(connection, take(connection, spec.id), 1, state=JobState.TIMEOUT)
        run_all(connection)
    else:
        control.cancel(connection, spec.id)
    assert batches.view(connection, spec.id).ended


def rerun(connection: Connection, batch: int) -> None:
    """Requeue all jobs of a batch that have not completed."""
    found = [(index, JobState[name]) for index, name in enumerate(states(connection, batch), 1)]
    runs = [(index, 1, state, 1) for index, state in found if state.terminal and state is not JobState.COMPLETED]
    assert requeue(connection, batch, runs) is not None


@pytest.mark.parametrize("how", ["ok", "failed", "timeout", "cancelled"])
@pytest.mark.parametrize("kind", ["afterok", "afterany", "afternotok"])
def test_each_kind_with_each_end(ledger: Connection, kind: str, how: str) -> None:
    """It waits until the other has ended, then runs, or never can, as the kind says."""
    first = submit(ledger, 2, ranges=[(1, 2)])
    spec = submit(ledger, 2, dependency=((kind, first.id),))
    view = batches.view(ledger, spec.id)
    assert (view.unmet, view.never, view.state) == (1, 0, "PENDING")
    assert_consistent(ledger)
    lease = take(ledger)
    assert lease.batch == first.id
    assert claim(ledger, spec.id) is None
    ranges.reclaim(ledger, [lease.token], crashed=False)
    runs = {"afterok": how == "ok", "afterany": True, "afternotok": how != "ok"}[kind]
    control.adjust(ledger, spec.id, "held", 1)
    end(ledger, first, how)
    control.adjust(ledger, spec.id, "held", 0)
    view = batches.view(ledger, spec.id)
    assert (view.unmet, view.never) == ((0, 0) if runs else (1, 1))
    assert_consistent(ledger)
    assert run_all(ledger) == ([1, 2] if runs else [])


def test_the_end_hands_out_the_tickets(ledger: Connection) -> None:
    """Whoever commits the last job publishes the ranges of those that waited for it."""
    first = submit(ledger, 1)
    followers = [submit(ledger, 3, dependency=(("afterok", first.id),)) for _ in range(2)]
    verdict = commit(ledger, take(ledger), 1)
    assert verdict.ended
    found = ranges.tickets(ledger, verdict.tickets)
    assert sorted((t.batch, t.first) for t in found) == [(spec.id, index) for spec in followers for index in (1, 2, 3)]


def test_all_of_several_must_be_met(ledger: Connection) -> None:
    """Two batches and two kinds: it runs when the last one allows it."""
    one, two = submit(ledger, 1), submit(ledger, 1)
    spec = submit(ledger, 1, dependency=(("afterok", one.id), ("afterany", two.id)))
    commit(ledger, take(ledger, one.id), 1)
    assert batches.view(ledger, spec.id).unmet == 1
    assert take(ledger).batch == two.id
    assert claim(ledger) is None
    control.cancel(ledger, two.id)
    assert batches.view(ledger, spec.id).unmet == 0
    assert take(ledger).batch == spec.id


@pytest.mark.parametrize(("how", "met"), [("ok", True), ("failed", False)])
def test_an_end_before_the_submit_counts(ledger: Connection, how: str, met: bool) -> None:
    """A batch that ended long ago is decided at once."""
    first = submit(ledger, 2, ranges=[(1, 2)])
    end(ledger, first, how)
    spec = submit(ledger, 2, dependency=(("afterok", first.id),))
    assert batches.view(ledger, spec.id).unmet == (0 if met else 1)
    assert run_all(ledger) == ([1, 2] if met else [])


def test_a_chain_runs_in_its_order(ledger: Connection) -> None:
    """Each waits for the one before it, also when its priority is higher."""
    chain = [submit(ledger, 1)]
    for priority in range(1, 5):
        chain.append(submit(ledger, 1, priority=priority, dependency=(("afterok", chain[-1].id),)))
    served = []
    while (lease := claim(ledger)) is not None:
        assert claim(ledger) is None
        commit(ledger, lease, 1)
        served.append(lease.batch)
        assert_consistent(ledger)
    assert served == [spec.id for spec in chain]


def test_what_can_never_be_met_waits_or_is_cancelled(ledger: Connection) -> None:
    """With kill_on_invalid_dependency the batch is CANCELLED with the reason; a chain of such goes with it."""
    first = submit(ledger, 2, ranges=[(1, 2)])
    patient = submit(ledger, 2, dependency=(("afterok", first.id),))
    killed = submit(ledger, 2, dependency=(("afterok", first.id),), kill_on_invalid_dependency=True)
    behind = submit(ledger, 2, dependency=(("afterok", killed.id),), kill_on_invalid_dependency=True)
    glad = submit(ledger, 2, dependency=(("afternotok", behind.id),))
    end(ledger, first, "failed")
    assert counted(ledger, patient.id) == {"PENDING": 2}
    assert batches.view(ledger, patient.id).never == 1
    for spec in (killed, behind):
        assert counted(ledger, spec.id) == {"CANCELLED": 2}
        assert [event["kind"] for event in control.events(ledger, spec.id)] == ["CANCELLED DependencyNeverSatisfied"]
    assert batches.view(ledger, glad.id).ended, "it ran beside the rest of the first"


def test_a_rerun_decides_again(ledger: Connection) -> None:
    """What waited in vain runs after its predecessor was run again and completed."""
    first = submit(ledger, 2, ranges=[(1, 2)])
    spec = submit(ledger, 2, dependency=(("afterok", first.id),))
    end(ledger, first, "failed")
    assert batches.view(ledger, spec.id).never == 1
    rerun(ledger, first.id)
    view = batches.view(ledger, spec.id)
    assert (view.unmet, view.never) == (1, 0)
    assert_consistent(ledger)
    end(ledger, first, "ok")
    assert counted(ledger, spec.id) == {"COMPLETED": 2}


def test_a_rerun_does_not_stop_what_has_begun(ledger: Connection) -> None:
    """Afternotok was met, its batch has begun: it goes on while the other is run again."""
    first = submit(ledger, 1)
    spec = submit(ledger, 2, dependency=(("afternotok", first.id),))
    commit(ledger, take(ledger), 1, failed=[1])
    commit(ledger, take(ledger, spec.id), 1)
    rerun(ledger, first.id)
    assert batches.view(ledger, spec.id).unmet == 0
    run_all(ledger)
    assert counted(ledger, spec.id) == {"COMPLETED": 2}


def test_a_cancelled_dependent_that_is_requeued_waits_again(ledger: Connection) -> None:
    """It is decided anew: it runs once its predecessor has completed, also when that was while it was cancelled."""
    first = submit(ledger, 2, ranges=[(1, 2)])
    spec = submit(ledger, 2, dependency=(("afterok", first.id),))
    control.cancel(ledger, spec.id)
    end(ledger, first, "ok")
    rerun(ledger, spec.id)
    assert batches.view(ledger, spec.id).unmet == 0
    assert_consistent(ledger)
    assert run_all(ledger) == [1, 2]


@pytest.mark.parametrize(("said", "runs"), [({1000: "ok"}, True), ({1000: "bad"}, False), ({}, False)])
def test_the_outcome_of_a_batch_that_the_ledger_forgot(ledger: Connection, said: dict[int, str], runs: bool) -> None:
    """A rebuild says how it ended; without a word it is waited for."""
    spec = BatchSpec(next(ids), 2, 1, dependency=(("afterok", 1000),))
    batches.submit(ledger, spec, outcomes=said)
    view = batches.view(ledger, spec.id)
    assert (view.unmet, view.never) == (int(not runs), int(said == {1000: "bad"}))
    assert run_all(ledger) == ([1, 2] if runs else [])


def test_a_rerun_does_not_kill_what_has_begun(ledger: Connection) -> None:
    """Afternotok was met, its batch has begun: it is not cancelled although the other completes when it runs again."""
    first = submit(ledger, 1)
    dependency = (("afternotok", first.id),)
    spec = submit(ledger, 2, priority=-1, dependency=dependency, kill_on_invalid_dependency=True)
    commit(ledger, take(ledger), 1, failed=[1])
    commit(ledger, take(ledger, spec.id), 1)
    rerun(ledger, first.id)
    commit(ledger, take(ledger, first.id), 1)
    assert counted(ledger, first.id) == {"COMPLETED": 1}
    view = batches.view(ledger, spec.id)
    assert (view.unmet, view.never) == (0, 0)
    run_all(ledger)
    assert counted(ledger, spec.id) == {"COMPLETED": 2}


# ---- stop rules -----------------------------------------------------------------------------------------------------


def stop(connection: Connection, spec: BatchSpec, *span: int) -> None:
    """The batch's stop rule is met, or that of the point of these jobs."""
    control.abort(connection, spec.id, Reason.StopRule, *span)


@pytest.mark.parametrize("kind", ["afterok", "afterany", "afternotok"])
@pytest.mark.parametrize("kill", [False, True])
def test_a_met_stop_rule_is_a_success(ledger: Connection, kind: str, kill: bool) -> None:
    """What was not needed is not missing: ABORTED, and afterok is met."""
    first = submit(ledger, 4, ranges=[(1, 2), (3, 2)], until="n >= 2")
    spec = submit(ledger, 2, dependency=((kind, first.id),), kill_on_invalid_dependency=kill)
    commit(ledger, take(ledger), 2)
    stop(ledger, first)
    assert (batches.view(ledger, first.id).state, batches.view(ledger, first.id).succeeded) == ("ABORTED", True)
    assert_consistent(ledger)
    runs = kind != "afternotok"
    assert run_all(ledger) == ([1, 2] if runs else [])
    assert counted(ledger, spec.id) == {"COMPLETED" if runs else "CANCELLED" if kill else "PENDING": 2}


def test_a_point_that_stopped_excuses_no_failure(ledger: Connection) -> None:
    """One point's rest was not needed, a job of the other failed; then that runs again and completes."""
    first = submit(ledger, 4, ranges=[(1, 2), (3, 2)], until="n >= 1")
    spec = submit(ledger, 1, dependency=(("afterok", first.id),))
    lease = take(ledger)
    commit(ledger, lease, 1)
    stop(ledger, first, 1, 2)
    commit(ledger, take(ledger), 2, failed=[4])
    assert batches.view(ledger, spec.id).never == 1
    rerun_of = [(4, 1, JobState.FAILED, 1)]
    assert requeue(ledger, first.id, rerun_of) is not None
    assert_consistent(ledger)
    run_all(ledger)
    assert counted(ledger, first.id) == {"COMPLETED": 3, "ABORTED": 1}
    assert counted(ledger, spec.id) == {"COMPLETED": 1}


def test_what_max_fails_aborted_is_no_success(ledger: Connection) -> None:
    """Also when the failed ones have completed since: the others are still missing."""
    first = submit(ledger, 6, ranges=[(1, 2), (3, 4)], max_fails=0, until="n >= 100")
    spec = submit(ledger, 1, dependency=(("afterok", first.id),))
    commit(ledger, take(ledger), 2, failed=[1])
    requeue(ledger, first.id, [(1, 1, JobState.FAILED, 1)])
    run_all(ledger)
    assert counted(ledger, first.id) == {"COMPLETED": 2, "ABORTED": 4}
    view = batches.view(ledger, spec.id)
    assert (view.unmet, view.never) == (1, 1)


def test_what_was_not_needed_and_is_requeued_must_complete(ledger: Connection) -> None:
    """A requeue of ABORTED jobs takes their excuse away; only that of those."""
    first = submit(ledger, 6, ranges=[(1, 2), (3, 4)], until="n >= 2")
    commit(ledger, take(ledger), 2)
    stop(ledger, first)
    assert batches.view(ledger, first.id).needless == 4
    assert requeue(ledger, first.id, [(4, 2, JobState.FAILED, 0)]) is None
    assert batches.view(ledger, first.id).needless == 4, "the ledger refused"
    assert requeue(ledger, first.id, [(4, 2, JobState.ABORTED, 0)]) is not None
    assert batches.view(ledger, first.id).needless == 2
    assert_consistent(ledger)
    control.cancel(ledger, first.id)
    spec = submit(ledger, 1, dependency=(("afterok", first.id),))
    assert batches.view(ledger, spec.id).never == 1
    requeue(ledger, first.id, [(4, 2, JobState.CANCELLED, 0)])
    assert_consistent(ledger)
    run_all(ledger)
    assert counted(ledger, spec.id) == {"COMPLETED": 1}


# ---- aftercorr ------------------------------------------------------------------------------------------------------
