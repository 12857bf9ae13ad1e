"""Packed batches: their slots, workers and Redis die, and their segments are cut at any byte."""

import os
import random
from pathlib import Path

import pytest

from common import outputs
from common.batch import BatchSpec, JobState
from common.ledger import batches
from common.packed import PACKED_NAME, blocks
from tests import support
from tests.chaos.expected import of_kind
from tests.chaos.promises import present_states
from tests.chaos.system import RECOVERY_SECONDS, SLOTS, ChaosSystem
from tests.chaos.ways import WayToDie

pytestmark = pytest.mark.chaos

JOBS = 600
JOB_SECONDS = 0.01
WAYS = [WayToDie.KILL_SLOT, WayToDie.KILL_WORKER, WayToDie.EMPTY_REDIS, WayToDie.KILL_SLOT, WayToDie.STOP_WORKER]


def until_done(system: ChaosSystem, spec: BatchSpec, jobs: int) -> None:
    """Wait until so many jobs have ended."""

    def enough() -> bool:
        system.look()
        view = system.view(spec)
        return bool(view and view.done >= jobs)

    support.wait_for(enough, RECOVERY_SECONDS, f"{jobs} jobs", system.state)


def finish(system: ChaosSystem, spec: BatchSpec) -> list[JobState]:
    """Wait for the end and check every promise; returns the states of the jobs."""
    system.wait_finished(spec, RECOVERY_SECONDS + spec.jobs * spec.job_seconds / (SLOTS / 2) + 20)
    states = system.check(spec)
    assert system.recovery.longest <= RECOVERY_SECONDS
    return states


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [{}, {"kills": 0.005, "raises": 0.05, "flaky": 0.05}])
def test_slots_workers_and_redis_die_in_turn(system: ChaosSystem, parameters: dict[str, float]) -> None:
    """What a dead slot had in its memory runs again, what it had committed is there; each job is counted once."""
    system.start_workers()
    spec = system.submit(
        JOBS, JOB_SECONDS, output_mode="packed", simulation="faulty", parameters=parameters, retries=1,
        retry_delay_seconds=0.1,
    )  # fmt: skip
    for number, way in enumerate(WAYS, 1):
        until_done(system, spec, JOBS * number // 8)
        system.inflict(way)
    states = finish(system, spec)
    assert states.count(JobState.FAILED) == len(of_kind(spec, "kills", "raises"))


def contents(segment: Path) -> list[tuple[int, set[int]]]:
    """The blocks of a segment: where each ends, and its jobs."""
    descriptor = os.open(segment, os.O_RDONLY)
    try:
        return [(block.end, set(block.indices.tolist())) for block in blocks(descriptor, 0, segment.stat().st_size)]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_a_segment_is_cut_at_a_random_byte_and_redis_is_emptied(system: ChaosSystem, seed: int) -> None:
    """Nothing runs meanwhile. All that was committed elsewhere, or before the cut, remains; the rest runs again."""
    chance = random.Random(seed)
    system.start_workers()
    # Seconds of work are left when it is held, also if the machine stands still before.
    spec = system.submit(JOBS, 4 * JOB_SECONDS, output_mode="packed")
    until_done(system, spec, chance.randint(JOBS // 4, JOBS // 2))
    system.controller.adjust(spec.id, "held", 1)
    view = support.wait_for(
        lambda: (v := batches.view(system.connection, spec.id)).state == "HELD" and v, 60, "HELD", system.state
    )
    committed = {i for i, s in enumerate(present_states(system.connection, spec), 1) if s is JobState.COMPLETED}
    assert len(committed) == view.done
    system.kill_all()
    segments = sorted((outputs.directory(system.root, spec) / PACKED_NAME).glob("segment-*.bin"))
    found = {segment: contents(segment) for segment in segments}
    cut = chance.choice(segments)
    at = chance.randrange(cut.stat().st_size)
    os.truncate(cut, at)
    kept = set().union(*(jobs for segment in segments for end, jobs in found[segment] if segment != cut or end <= at))
    assert committed - kept < committed, "nothing was left to keep"
    system.inflict(WayToDie.EMPTY_REDIS)
    rebuilt = support.wait_for(lambda: system.view(spec), RECOVERY_SECONDS, "the rebuilt batch", system.state)
    assert rebuilt.held, "the hold was forgotten"
    now = {i for i, s in enumerate(present_states(system.connection, spec), 1) if s is JobState.COMPLETED}
    assert now == kept
    system.controller.adjust(spec.id, "held", 0)
    system.recovery.start()
    assert set(finish(system, spec)) == {JobState.COMPLETED}
