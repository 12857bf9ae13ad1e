"""Batches that wait for others: four kinds, chains, reruns that decide again, and what can never be met."""

from pathlib import Path

import pytest

from common import queue
from common.batch import BatchSpec, JobState, Reason
from common.ledger import Connection, batches, control, keys, ranges
from services.worker.following import follow
from tests.integration.ledger_support import (
    assert_consistent,
    claim,
    commit,
    ids,
    requeue,
    run_all,
    spans,
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


def follows(connection: Connection, jobs: int, *, kill: bool = False) -> tuple[BatchSpec, BatchSpec]:
    """Two batches of one range each, the second behind the first, element by element."""
    first = submit(connection, jobs, ranges=[(1, jobs)], priority=-1)
    spec = submit(
        connection, jobs, ranges=[(1, jobs)], dependency=(("aftercorr", first.id),), kill_on_invalid_dependency=kill
    )
    follow(connection, queue.make_app(connection.url), Path("outputs"))
    assert connection.command("SCARD", keys.UNPRIMED) == 0
    return first, spec


def test_elements_follow_one_by_one(ledger: Connection) -> None:
    """What completed there may run here, and nothing else."""
    first, spec = follows(ledger, 10)
    lease = take(ledger, first.id)
    verdict = commit(ledger, lease, 4, failed=[2], give_back=True)
    released = [t for t in ranges.tickets(ledger, verdict.tickets) if t.batch == spec.id]
    assert sorted((t.first, t.count) for t in released) == [(1, 1), (3, 2)]
    assert spans(ledger, keys.blocked(spec.id)) == [(2, 1), (5, 6)]
    assert_consistent(ledger)
    ran = []
    for _ in range(2):
        lease = take(ledger, spec.id)
        commit(ledger, lease, lease.count)
        ran += range(lease.first, lease.first + lease.count)
    assert sorted(ran) == [1, 3, 4]


def test_what_follows_a_failure_waits_for_a_rerun(ledger: Connection) -> None:
    """Its element stays blocked and the batch open; the rerun's success lets it run."""
    first, spec = follows(ledger, 4)
    run_all(ledger, failed=[3])
    # The third of the second batch never ran, so nothing failed there.
    assert counted(ledger, spec.id) == {"COMPLETED": 3, "PENDING": 1}
    assert batches.view(ledger, spec.id).never == 1
    rerun(ledger, first.id)
    assert batches.view(ledger, spec.id).never == 0
    run_all(ledger)
    assert counted(ledger, spec.id) == {"COMPLETED": 4}


def test_what_follows_a_failure_is_cancelled_with_kill(ledger: Connection) -> None:
    """Only the elements whose counterpart failed; the others run."""
    first, spec = follows(ledger, 4, kill=True)
    lease = take(ledger, first.id)
    commit(ledger, lease, 4, failed=[3])
    assert counted(ledger, spec.id) == {"PENDING": 3, "CANCELLED": 1}
    assert_consistent(ledger)
    assert sorted(run_all(ledger)) == [1, 2, 4]
    assert states(ledger, spec.id)[2] == "CANCELLED"


@pytest.mark.parametrize("failed_first", [True, False])
def test_kill_takes_only_the_elements_whatever_ends_first(ledger: Connection, failed_first: bool) -> None:
    """Behind a second batch as well: only what follows the failure is cancelled, before or after that one's end."""
    first, other = submit(ledger, 3, ranges=[(1, 3)]), submit(ledger, 1)
    dependency = (("aftercorr", first.id), ("afterany", other.id))
    spec = submit(ledger, 3, ranges=[(1, 3)], dependency=dependency, kill_on_invalid_dependency=True)
    ranges.unblock(ledger, spec.id, [], primed=f"{spec.id}:{first.id}")
    ends = [lambda: commit(ledger, held[0], 3, failed=[2]), lambda: commit(ledger, held[1], 1)]
    held = [take(ledger, first.id), take(ledger, other.id)]
    for end_of_it in ends if failed_first else reversed(ends):
        end_of_it()
        assert_consistent(ledger)
    assert states(ledger, spec.id) == ["PENDING", "CANCELLED", "PENDING"]
    view = batches.view(ledger, spec.id)
    assert (view.unmet, view.never) == (0, 0)
    assert sorted(run_all(ledger)) == [1, 3]


@pytest.mark.parametrize("kill", [False, True])
def test_kill_takes_all_when_another_dependency_cannot_be_met(ledger: Connection, kill: bool) -> None:
    """Elements that were released already go with the rest."""
    first, other = submit(ledger, 3, ranges=[(1, 3)]), submit(ledger, 1)
    dependency = (("aftercorr", first.id), ("afterok", other.id))
    spec = submit(ledger, 3, ranges=[(1, 3)], dependency=dependency, kill_on_invalid_dependency=kill)
    ranges.unblock(ledger, spec.id, [], primed=f"{spec.id}:{first.id}")
    commit(ledger, take(ledger, first.id), 3)
    commit(ledger, take(ledger, other.id), 1, failed=[1])
    assert counted(ledger, spec.id) == {"CANCELLED" if kill else "PENDING": 3}
    assert_consistent(ledger)


@pytest.mark.parametrize("kill", [False, True])
def test_elements_of_what_was_not_needed(ledger: Connection, kill: bool) -> None:
    """The batch has succeeded, and yet they have nothing to follow."""
    first, spec = follows(ledger, 4, kill=kill)
    commit(ledger, take(ledger, first.id), 2)
    stop(ledger, first)
    assert batches.view(ledger, first.id).succeeded
    assert batches.view(ledger, spec.id).never == int(not kill)
    assert sorted(run_all(ledger)) == [1, 2]
    assert counted(ledger, spec.id) == {"COMPLETED": 2, "CANCELLED" if kill else "PENDING": 2}
    assert_consistent(ledger)


@pytest.mark.parametrize("kill", [False, True])
def test_what_completed_before_is_released_by_the_housekeeper(ledger: Connection, redis_url: str, kill: bool) -> None:
    """A batch that comes after its predecessor's first jobs, or after its end, misses none of them."""
    first = submit(ledger, 6, ranges=[(1, 6)])
    lease = take(ledger)
    commit(ledger, lease, 6, failed=[2])
    spec = submit(ledger, 6, ranges=[(1, 6)], dependency=(("aftercorr", first.id),), kill_on_invalid_dependency=kill)
    assert claim(ledger) is None
    follow(ledger, queue.make_app(redis_url), Path("outputs"))
    assert ledger.command("SCARD", keys.UNPRIMED) == 0
    assert sorted(spans(ledger, keys.ranges(spec.id))) == [(1, 1), (3, 4)]
    assert counted(ledger, spec.id).get("CANCELLED", 0) == int(kill)
    assert_consistent(ledger)


def test_releasing_twice_releases_once(ledger: Connection, redis_url: str) -> None:
    """The commit and the housekeeper may both release an element."""
    first, spec = follows(ledger, 6)
    lease = take(ledger, first.id)
    commit(ledger, lease, 6)
    follow(ledger, queue.make_app(redis_url), Path("outputs"))
    assert ranges.unblock(ledger, spec.id, [(1, 6)]) == []
    assert sorted(run_all(ledger)) == [1, 2, 3, 4, 5, 6]
    assert counted(ledger, spec.id) == {"COMPLETED": 6}


def test_a_follower_that_runs_again_waits_again_and_counts_on(ledger: Connection, redis_url: str) -> None:
    """Requeued elements wait for their counterparts once more; their attempts go on counting."""
    first, spec = follows(ledger, 4)
    commit(ledger, take(ledger, first.id), 2, give_back=True)
    control.adjust(ledger, first.id, "held", 1)
    failed = take(ledger, spec.id)
    commit(ledger, failed, 2, failed=[1, 2])
    control.cancel(ledger, spec.id, 3, 4)
    runs = [(1, 2, JobState.FAILED, failed.attempt), (3, 2, JobState.CANCELLED, 0)]
    assert requeue(ledger, spec.id, runs) == []
    follow(ledger, queue.make_app(redis_url), Path("outputs"))
    again = take(ledger, spec.id)
    assert (again.batch, again.first, again.count, again.attempt) == (spec.id, 1, 2, failed.attempt + 1)
    assert sorted((r.first, r.count) for r in ranges.open_ranges(ledger, spec.id)) == [(1, 2), (3, 2)]
    commit(ledger, again, 2)
    assert claim(ledger, spec.id) is None
    control.adjust(ledger, first.id, "held", 0)
    assert sorted(run_all(ledger)) == [3, 3, 4, 4]
