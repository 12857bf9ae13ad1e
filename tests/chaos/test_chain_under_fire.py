"""Batches that wait for others, while the one that they wait for loses a worker, and Redis."""

import pytest

from common.batch import BatchSpec
from common.ledger import batches, keys
from tests import support
from tests.chaos.system import RECOVERY_SECONDS, SLOTS, ChaosSystem
from tests.chaos.ways import WayToDie

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

JOBS = 200
JOB_SECONDS = 0.02
# Numbers whose order as text is another: "10" comes before "9".
TURNING = 8


def chain(system: ChaosSystem, last_id: int) -> list[BatchSpec]:
    """Three batches: the second follows the first job by job, the third comes after the second."""
    system.connection.command("SET", keys.LAST_BATCH, last_id)
    first = system.submit(JOBS, JOB_SECONDS, seed=1)
    second = system.submit(JOBS, JOB_SECONDS, seed=2, dependency=f"aftercorr:{first.id}", output_mode="packed")
    third = system.submit(JOBS, JOB_SECONDS, seed=3, dependency=f"afterok:{second.id}")
    return [first, second, third]


def finish(system: ChaosSystem, specs: list[BatchSpec]) -> None:
    """All of them complete, in their order, within the recovery time of an undisturbed run."""
    for spec in specs:
        system.wait_finished(spec, RECOVERY_SECONDS + len(specs) * JOBS * JOB_SECONDS / (SLOTS / 2))
    for spec in specs:
        assert set(system.check(spec)) == {support.JobState.COMPLETED}
    assert system.recovery.longest <= RECOVERY_SECONDS


@pytest.mark.parametrize("last_id", [0, TURNING])
def test_the_first_loses_a_worker_and_redis(system: ChaosSystem, last_id: int) -> None:
    """In the middle of the first, when some elements of the second have been released and some have not."""
    system.start_workers()
    first, second, third = specs = chain(system, last_id)
    support.wait_for(lambda: batches.view(system.connection, second.id).done > 0, 60, "released elements", system.state)
    assert not batches.view(system.connection, first.id).ended
    system.inflict(WayToDie.KILL_WORKER)
    system.inflict(WayToDie.EMPTY_REDIS)
    assert not (system.root / str(third.id) / "results.csv").exists()
    finish(system, specs)


@pytest.mark.parametrize("last_id", [0, TURNING])
def test_redis_is_emptied_when_the_first_has_finished(system: ChaosSystem, last_id: int) -> None:
    """What has finished is not rebuilt: its files alone say which elements may run."""
    system.start_workers()
    specs = chain(system, last_id)
    first, second, _ = specs
    # The second begins late, so that elements are left to be released when the first is forgotten.
    system.controller.adjust(second.id, "held", 1)
    system.wait_finished(first, RECOVERY_SECONDS)
    system.inflict(WayToDie.EMPTY_REDIS)
    support.wait_for(lambda: system.view(second), RECOVERY_SECONDS, "the second batch to be rebuilt", system.state)
    assert system.view(first) is None
    system.controller.adjust(second.id, "held", 0)
    system.recovery.start()
    finish(system, specs)
