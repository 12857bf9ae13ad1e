"""A batch that follows another element by element: job i after job i."""

from pathlib import Path

import pytest

from common import queue
from common.batch import BatchSpec, JobState
from common.ledger import Connection, batches, control, keys, ranges
from services.worker.following import follow
from tests.integration.ledger_support import (
    assert_consistent,
    claim,
    commit,
    requeue,
    run_all,
    spans,
    states,
    submit,
    take,
)
from tests.integration.test_dependencies import rerun, stop
from tests.support import counted


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
