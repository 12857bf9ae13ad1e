"""Two people act on the same batch at once."""

import contextlib
import json
import time
from collections.abc import Callable

import pytest

from common import outputs
from common.batch import BatchSpec, JobState
from common.errors import BatchSimError, Conflict
from common.ledger import batches
from tests import support
from tests.chaos.expected import Told, kinds
from tests.chaos.system import RECOVERY_SECONDS, SLOTS, ChaosSystem
from tests.chaos.ways import WayToDie
from tests.support import Running

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

JOBS = 1500
JOB_SECONDS = 0.005
SECONDS = 8.0
LASTING = ("held", "throttle", "priority")
IN_USE = "is in use by another run"
EVERY = [state for state in JobState if state.terminal and state is not JobState.COMPLETED]


def storm(system: ChaosSystem, spec: BatchSpec, way: WayToDie | None) -> list[Running]:
    """Two operators for some seconds, and a fault in the middle."""
    operators = []
    for seed in (1, 2):
        own = system.root.parent / f"operator-{seed}"
        own.mkdir()
        arguments = [seed, SECONDS, system.server.url, system.root, spec.id]
        command = support.python("-m", "tests.chaos.operators", *map(str, arguments))
        operators.append(support.start(command, support.environment(), own))
    until = time.monotonic() + SECONDS / 2
    while time.monotonic() < until:
        system.look()
        time.sleep(0.05)
    if way:
        system.inflict(way)
    for operator in operators:
        assert operator.wait(SECONDS + 60) == 0, operator.text()
    return operators


@pytest.mark.parametrize("way", [None, WayToDie.KILL_SLOT, WayToDie.KILL_WORKER])
def test_two_operators_at_once(system: ChaosSystem, way: WayToDie | None, figures: Callable[[str], None]) -> None:
    """Each gets an answer or a reason; what the volume notes is what the ledger says; every job has its end."""
    system.start_workers()
    parameters = {"raises": 0.05, "flaky": 0.05}
    spec = system.submit(JOBS, JOB_SECONDS, simulation="faulty", parameters=parameters)
    told = Told()
    refused = []
    for operator in storm(system, spec, way):
        said = json.loads(operator.text().splitlines()[-1])
        figures(f"answered {said['answered']}, refused {said['refused']}")
        assert said["strange"] == []
        told.asked.update(said["asked"])
        refused += said["refused"]
    view = batches.view(system.connection, spec.id)
    noted = outputs.read_control(outputs.directory(system.root, spec))
    if not view.ended:
        present = {"held": int(view.held), "throttle": view.throttle, "priority": view.priority}
        assert {name: noted.get(name, 0) for name in LASTING} == present
        system.controller.adjust(spec.id, "throttle", 0)
        system.controller.adjust(spec.id, "held", 0)
    system.recovery.start()
    system.wait_finished(spec, RECOVERY_SECONDS + JOBS * JOB_SECONDS / (SLOTS / 2))
    system.check(spec, told)
    everything_again(system, spec)
    assert system.recovery.longest <= RECOVERY_SECONDS
    assert not [reason for reason in refused if IN_USE in reason], "two people are no second run of the system"


def everything_again(system: ChaosSystem, spec: BatchSpec) -> None:
    """What failed or was cancelled runs again, until only those are not COMPLETED that always fail."""
    for _ in range(2):
        support.wait_for(lambda: requeued(system, spec), 60, "an answer to the requeue", system.state)
        # It may have ended while it was held, and is so still.
        with contextlib.suppress(Conflict):
            system.controller.adjust(spec.id, "held", 0)
            system.controller.adjust(spec.id, "throttle", 0)
        system.wait_finished(spec, RECOVERY_SECONDS + JOBS * JOB_SECONDS / (SLOTS / 2))
    states = system.check(spec)
    assert states == [JobState.FAILED if kind == "raises" else JobState.COMPLETED for kind in kinds(spec)]


def requeued(system: ChaosSystem, spec: BatchSpec) -> bool:
    """Whether the requeue was answered."""
    try:
        return system.controller.requeue(spec.id, EVERY) > 0
    except BatchSimError:
        return False
