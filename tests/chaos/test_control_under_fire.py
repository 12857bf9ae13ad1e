"""What people do to a batch, in the middle of what kills its parts: it holds from its answer on; nothing is lost."""

import contextlib
import threading
import time

import pytest

from common import outputs
from common.batch import BatchSpec, JobState
from common.errors import BatchSimError
from common.ledger import batches, keys
from tests import support
from tests.chaos.expected import Told, kinds, of_kind
from tests.chaos.phases import leases
from tests.chaos.promises import present_states
from tests.chaos.system import LEASE_SECONDS, RECOVERY_SECONDS, SLICE_SECONDS, SLOTS, ChaosSystem
from tests.chaos.ways import WayToDie
from tests.slots import kill_at_work

pytestmark = pytest.mark.chaos

JOBS = 400
JOB_SECONDS = 0.02
# Long enough that a batch is not over when the machine stood still for seconds.
LONG_JOB_SECONDS = 0.05
SLICE_JOBS = int(SLICE_SECONDS / JOB_SECONDS) + 1
SPANS = {"whole": [(1, JOBS)], "part": [(31, 60), (JOBS // 2, JOBS - 20)]}
S = JobState


def begin(system: ChaosSystem, **options: object) -> BatchSpec:
    """A batch of which a tenth has ended, and that all slots work on."""
    system.start_workers()
    spec = system.submit(JOBS, LONG_JOB_SECONDS, **options)
    support.wait_for(
        lambda: leases(system) == SLOTS and batches.view(system.connection, spec.id).done > JOBS // 10,
        60, "a tenth of the batch", system.state,
    )  # fmt: skip
    return spec


def cancelled(system: ChaosSystem, spec: BatchSpec, what: str) -> set[int]:
    """Cancel this part of the batch; returns the jobs that are CANCELLED when the answer comes."""
    running = batches.view(system.connection, spec.id).counters[S.RUNNING]
    if what == "RUNNING":
        assert system.controller.cancel(spec.id, state="RUNNING") == running
    else:
        spans = SPANS[what]
        assert system.controller.cancel(spec.id, spans) > 0
        open_now = [s is S.PENDING for s in present_states(system.connection, spec)]
        assert not any(any(open_now[low - 1 : high]) for low, high in spans), "a job of the span is still open"
    return {index for index, state in enumerate(present_states(system.connection, spec), 1) if state is S.CANCELLED}


def finish(system: ChaosSystem, spec: BatchSpec, told: Told | None = None) -> list[JobState]:
    """Wait for the end and check every promise; returns the states of the jobs."""
    bad = len(of_kind(spec, "hangs", "kills", "memory"))
    system.wait_finished(spec, RECOVERY_SECONDS + spec.jobs * spec.job_seconds / (SLOTS / 2) + bad)
    states = system.check(spec, told)
    assert system.recovery.longest <= RECOVERY_SECONDS
    return states


@pytest.mark.parametrize("what", ["whole", "part", pytest.param("RUNNING", marks=pytest.mark.slow)])
def test_cancel_while_a_worker_is_dead(system: ChaosSystem, what: str) -> None:
    """Its leases have not run out: what it held is cancelled as everything else is, at once."""
    system.lease_seconds = 4 * LEASE_SECONDS
    spec = begin(system)
    held = kill_at_work(system.connection, system.living()[0])
    present = set(system.connection.command("ZRANGE", keys.LEASES, 0, -1))
    assert held <= present, "the dead worker's leases ran out before the cancel"
    answered = cancelled(system, spec, what)
    assert bool(batches.view(system.connection, spec.id).ended) == (what == "whole")
    system.revive()
    system.recovery.start()
    states = finish(system, spec, Told(answered=answered))
    assert {index for index, state in enumerate(states, 1) if state is S.CANCELLED} == answered


@pytest.mark.parametrize("what", [pytest.param("whole", marks=pytest.mark.slow), "part"])
def test_cancel_then_redis_is_emptied_at_once(system: ChaosSystem, what: str) -> None:
    """What was cancelled stays so, also what slots had written and could not commit any more."""
    spec = begin(system)
    answered = cancelled(system, spec, what)
    system.inflict(WayToDie.EMPTY_REDIS)
    states = finish(system, spec, Told(answered=answered))
    assert states.count(S.CANCELLED) > 0


@pytest.mark.slow
def test_cancel_of_what_runs_then_redis_is_emptied(system: ChaosSystem) -> None:
    """A cancel by state is an answer as any other is."""
    system.start_workers()
    spec = system.submit(2 * SLOTS, 3.0)
    support.wait_for(lambda: leases(system) == SLOTS, 60, "the first jobs", system.state)
    answered = cancelled(system, spec, "RUNNING")
    assert len(answered) == SLOTS
    system.inflict(WayToDie.EMPTY_REDIS)
    finish(system, spec, Told(answered=answered))


@pytest.mark.slow
def test_cancel_and_requeue_of_others_then_redis_is_emptied(system: ChaosSystem) -> None:
    """That failed jobs are run again changes nothing for those that were cancelled."""
    spec = begin(system, simulation="faulty", parameters={"raises": 0.3})
    answered = cancelled(system, spec, "part")
    assert system.controller.requeue(spec.id, [S.FAILED]) > 0
    system.inflict(WayToDie.EMPTY_REDIS)
    finish(system, spec, Told(answered=answered))


def nearly_done(system: ChaosSystem, jobs: int, left: int, job_seconds: float) -> BatchSpec:
    """A held batch of which all but the last jobs have completed: Redis was emptied and found their files."""
    spec = system.submit(jobs, job_seconds, hold=True)
    for index in range(1, jobs - left + 1):
        (outputs.directory(system.root, spec) / outputs.job_name(index)).write_bytes(
            support.expected_csv(spec.seed, index)
        )
    system.inflict(WayToDie.EMPTY_REDIS)
    support.wait_for(lambda: system.view(spec), RECOVERY_SECONDS, "the rebuilt batch", system.state)
    view = batches.view(system.connection, spec.id)
    assert (view.done, view.held) == (jobs - left, True)
    return spec


@pytest.mark.slow
def test_hold_at_99_percent_and_release_while_redis_restarts(system: ChaosSystem) -> None:
    """Held, what runs ends and the rest waits; a release that Redis does not answer is none, and is tried again."""
    system.start_workers()
    spec = nearly_done(system, jobs=1000, left=10, job_seconds=0.5)
    system.controller.adjust(spec.id, "held", 0)
    support.wait_for(lambda: leases(system) == SLOTS, 60, "the last jobs", system.state)
    system.controller.adjust(spec.id, "held", 1)
    view = support.wait_for(
        lambda: (v := batches.view(system.connection, spec.id)).state == "HELD" and v, 60, "HELD", system.state
    )
    assert view.counters[S.PENDING] > 0
    system.server.stop()
    with pytest.raises(BatchSimError):
        system.controller.adjust(spec.id, "held", 0)
    restart = threading.Thread(target=system.server.restart)
    restart.start()

    def released() -> bool:
        try:
            return not system.controller.adjust(spec.id, "held", 0).held
        except BatchSimError:
            return False

    support.wait_for(released, RECOVERY_SECONDS, "an answer to the release", system.state)
    restart.join()
    system.recovery.start()
    assert set(finish(system, spec)) == {S.COMPLETED}


@pytest.mark.slow
@pytest.mark.parametrize("way", [WayToDie.KILL_SLOT, WayToDie.KILL_WORKER, WayToDie.KILL_REDIS])
def test_requeue_during_the_commits_of_others(system: ChaosSystem, way: WayToDie) -> None:
    """Failed jobs are run again and again while the others are committed, and once more after the end."""
    spec = begin(system, simulation="faulty", parameters={"raises": 0.1, "flaky": 0.2})
    requeued = 0

    def ended() -> bool:
        nonlocal requeued
        # Refused when a job has moved meanwhile.
        with contextlib.suppress(BatchSimError):
            requeued += system.controller.requeue(spec.id, [S.FAILED])
        system.look()
        view = system.view(spec)
        return bool(view and view.done > JOBS * 0.6)

    support.wait_for(ended, 60, "the middle of the batch", system.state)
    system.inflict(way)
    last = finish(system, spec).count(S.FAILED)
    assert requeued > 0
    assert system.controller.requeue(spec.id, [S.FAILED]) == last
    states = finish(system, spec)
    wanted = [S.FAILED if kind == "raises" else S.COMPLETED for kind in kinds(spec)]
    assert states == wanted


@pytest.mark.slow
def test_throttle_goes_up_and_down_while_slots_are_killed(system: ChaosSystem) -> None:
    """Never more jobs run than the throttle says; after it was lowered, once the slices of then are over."""
    system.start_workers()
    spec = system.submit(1500, JOB_SECONDS, throttle=1)
    story, most = [], 1
    for number, throttle in enumerate([2, 4, 1, 3, 2, 4, 3, 1]):
        system.controller.adjust(spec.id, "throttle", throttle)
        if throttle < most:
            # A slot that dies now holds its lease until another process takes its place.
            support.wait_for(lambda n=throttle: running(system, spec) <= n, 5, f"at most {throttle}", system.state)  # type: ignore[misc]
        most = throttle
        before, until = batches.view(system.connection, spec.id).done, time.monotonic() + 1.0
        if number % 2:
            system.inflict(WayToDie.KILL_SLOT)
        while time.monotonic() < until:
            story.append(running(system, spec))
            assert story[-1] <= throttle, (throttle, story[-50:], system.state())
        support.wait_for(lambda b=before: batches.view(system.connection, spec.id).done > b, 60, "a commit")  # type: ignore[misc]
    assert max(story) == SLOTS, "the throttle was never used up"
    system.controller.adjust(spec.id, "throttle", 0)
    finish(system, spec)


def running(system: ChaosSystem, spec: BatchSpec) -> int:
    """How many jobs of the batch run, as the ledger says."""
    return batches.view(system.connection, spec.id).counters[S.RUNNING]


@pytest.mark.slow
def test_priority_is_raised_while_a_worker_is_suspended(system: ChaosSystem) -> None:
    """The other worker goes over to the raised batch; nothing of the one in front goes on before it."""
    system.start_workers()
    first = system.submit(600, JOB_SECONDS, seed=1)
    second = system.submit(300, JOB_SECONDS, seed=2, priority=-1)
    support.wait_for(lambda: batches.view(system.connection, first.id).done > 60, 60, "some jobs", system.state)
    assert batches.view(system.connection, second.id).started is None
    worker = system.living()[0]
    system.suspend(worker)
    system.controller.adjust(second.id, "priority", 10)
    support.wait_for(lambda: batches.view(system.connection, second.id).done > 0, 60, "the raised one", system.state)
    before = batches.view(system.connection, first.id).done
    support.wait_for(lambda: batches.view(system.connection, second.id).done > 150, 60, "half of it", system.state)
    # One slice of each slot may have been on its way when the priority was raised.
    assert batches.view(system.connection, first.id).done - before <= SLOTS * SLICE_JOBS
    system.suspend(worker, go_on=True)
    system.recovery.start()
    for spec in (second, first):
        assert set(finish(system, spec)) == {S.COMPLETED}
    assert not system.connection.command("ZCARD", keys.LEASES)
