"""Each way to die in each phase: nothing is lost, nothing is counted twice, the files are the same bytes."""

import pytest

from common.batch import BatchSpec
from common.ledger import batches, keys
from tests import support
from tests.chaos.system import RECOVERY_SECONDS, ChaosSystem, Phase, WayToDie

pytestmark = pytest.mark.chaos

JOBS = 300
JOB_SECONDS = 0.01
PAUSE_MS = 3000


def reach(system: ChaosSystem, phase: Phase) -> BatchSpec:
    """Bring the system to this phase."""
    if phase is Phase.QUEUED:
        spec = system.submit(JOBS, JOB_SECONDS)
        assert int(system.connection.command("LLEN", "batchsim")) > 0
        return spec
    system.start_workers()
    spec = system.submit(JOBS, JOB_SECONDS)
    if phase is Phase.FINISHING:
        support.wait_for(
            lambda: batches.view(system.connection, spec.id).ended, 30, "the last job", lambda: system.view(spec)
        )
        return spec
    support.wait_for(lambda: int(system.connection.command("ZCARD", keys.LEASES)) >= 2, 20, "two leases")
    if phase is Phase.COMMITTING:
        # Commits hang from here on, and the fault strikes while they do.
        system.connection.command("CLIENT", "PAUSE", PAUSE_MS, "WRITE")
        support.wait_for(lambda: "evalsha" in clients(system), 10, "a commit that hangs", lambda: clients(system))
    return spec


def clients(system: ChaosSystem) -> str:
    """What Redis says of its clients that wait for the end of the pause."""
    rows = system.connection.redis.client_list()
    return " ".join(str(row.get("cmd")) for row in rows if "b" in str(row.get("flags")))


# While nothing was claimed no worker holds anything that could be lost with it.
CASES = [
    pytest.param(
        way,
        phase,
        id=f"{way.name.lower()}-{phase.name.lower()}",
        # All phases are for `make chaos`; the one that users meet is in every run of the tests.
        marks=() if phase is Phase.MID_JOB else pytest.mark.slow,
    )
    for way in WayToDie
    for phase in Phase
    if not (phase is Phase.QUEUED and way.hits_workers)
]


@pytest.mark.parametrize(("way", "phase"), CASES)
def test_every_job_ends_once_whatever_dies(system: ChaosSystem, way: WayToDie, phase: Phase) -> None:
    """The batch completes within the recovery time of an undisturbed run, and the audit finds nothing."""
    spec = reach(system, phase)
    system.inflict(way)
    if phase is Phase.QUEUED:
        system.start_workers()
    system.wait_finished(spec, RECOVERY_SECONDS + JOBS * JOB_SECONDS / 2)
    system.check(spec)
