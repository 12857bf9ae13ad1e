"""The phases of a batch in which a fault can strike, and how to bring a system there."""

from enum import Enum

from common.batch import BatchSpec
from common.ledger import batches, keys, ranges
from tests import support
from tests.chaos.system import LEASE_SECONDS, SLICE_SECONDS, SLOTS, ChaosSystem

JOBS = 800
JOB_SECONDS = 0.01
# Jobs that take longer than it takes to see that they have begun.
LONG_JOBS = 2 * SLOTS
LONG_JOB_SECONDS = 1.0
# How many batches may be over before we see their middle.
TRIES = 5
PAUSE_MS = 3000
NOBODY = "unix:///nonexistent/redis.sock"


class Phase(Enum):
    """When it happens, from what the ledger shows at that moment."""

    QUEUED = "nothing was claimed yet"
    PUBLISHING = "the batch is in the ledger, none of its messages is published"
    CLAIMED = "ranges were claimed, nothing was committed yet"
    MID_JOB = "half of the jobs are committed, slots have run others since"
    COMMITTING = "slots are at a commit that Redis does not answer yet"
    SHARING = "a range was cut for idle slots, its holder died before it published the parts"
    FINISHING = "the last job has ended, the results files are not written"


def reach(system: ChaosSystem, phase: Phase) -> BatchSpec:
    """Bring the system to this phase."""
    if phase is Phase.QUEUED:
        spec = system.submit(JOBS, JOB_SECONDS)
        assert int(system.connection.command("LLEN", "batchsim")) > 0
        return spec
    system.start_workers()
    if phase is Phase.PUBLISHING:
        return system.submit(JOBS, JOB_SECONDS, broker=NOBODY)
    if phase is Phase.SHARING:
        return shared(system)
    if phase is Phase.CLAIMED:
        spec = system.submit(LONG_JOBS, LONG_JOB_SECONDS)
        support.wait_for(lambda: leases(system) >= 2, 60, "two leases", system.state)
        assert batches.view(system.connection, spec.id).done == 0, "the first jobs have ended already"
        return spec
    if phase is Phase.FINISHING:
        spec = system.submit(JOBS, JOB_SECONDS)
        support.wait_for(lambda: batches.view(system.connection, spec.id).ended, 60, "the last job", system.state)
        return spec
    spec = until_halfway(system)
    if phase is Phase.COMMITTING:
        # Commits hang from here on, and the fault strikes while they do.
        system.connection.command("CLIENT", "PAUSE", PAUSE_MS, "WRITE")
        support.wait_for(lambda: "evalsha" in clients(system), 60, "a commit that hangs", lambda: clients(system))
    return spec


def until_halfway(system: ChaosSystem) -> BatchSpec:
    """A batch in its middle; another one when that was over before we looked."""
    for _ in range(TRIES):
        spec = system.submit(JOBS, JOB_SECONDS)
        support.wait_for(
            lambda spec=spec: halfway(system, spec) or batches.view(system.connection, spec.id).finished,  # type: ignore[misc]
            60, "the middle of the batch", system.state,
        )  # fmt: skip
        if not batches.view(system.connection, spec.id).ended:
            return spec
        # What is said of recovery and of jobs that run twice is to be said of the batch that is hurt alone.
        system.wait_finished(spec, 60)
        system.check(spec)
        system.run_twice([spec])
    raise AssertionError(f"the middle of {TRIES} batches was missed")


def shared(system: ChaosSystem) -> BatchSpec:
    """A batch whose only range was claimed, and cut for the idle slots, by a slot that died then and there."""
    spec = system.submit_one_range(JOBS, JOB_SECONDS)
    lease, cut_off = ranges.claim(
        system.connection, (spec.id, ""), worker="dead", slot="dead/0", lease_seconds=LEASE_SECONDS,
        slice_seconds=SLICE_SECONDS,
    )  # fmt: skip
    assert lease is not None
    assert len(cut_off) == SLOTS - 1
    return spec


def leases(system: ChaosSystem) -> int:
    """How many ranges slots hold."""
    return int(system.connection.command("ZCARD", keys.LEASES))


def halfway(system: ChaosSystem, spec: BatchSpec) -> bool:
    """Whether half of the batch is committed and there are results that are not."""
    done = batches.view(system.connection, spec.id).done
    uncommitted = system.uncommitted(spec, done)
    return leases(system) >= 2 and done >= spec.jobs // 2 and (uncommitted is None or uncommitted >= SLOTS)


def clients(system: ChaosSystem) -> str:
    """What Redis says of its clients that wait for the end of the pause."""
    rows = system.connection.redis.client_list()
    return " ".join(str(row.get("cmd")) for row in rows if "b" in str(row.get("flags")))
