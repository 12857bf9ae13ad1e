"""Each way to die in each phase: nothing is lost, nothing is counted twice, the files are the same bytes."""

from collections.abc import Callable

import pytest

from tests.chaos.phases import Phase, reach
from tests.chaos.system import RECOVERY_SECONDS, SLOTS, ChaosSystem
from tests.chaos.ways import WayToDie

pytestmark = pytest.mark.chaos

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
def test_every_job_ends_once_whatever_dies(
    system: ChaosSystem, way: WayToDie, phase: Phase, figures: Callable[[str], None]
) -> None:
    """The batch completes within the recovery time of an undisturbed run, and the audit finds nothing."""
    if way.needs_volume and system.volume is None:
        pytest.skip("mounting a small disk is not permitted")
    system.movable_clocks = way is WayToDie.CLOCK_JUMP
    spec = reach(system, phase)
    system.inflict(way)
    if phase is Phase.QUEUED:
        system.start_workers()
        system.recovery.start()
    # The half of the slots is what a fault leaves.
    system.wait_finished(spec, RECOVERY_SECONDS + spec.jobs * spec.job_seconds / (SLOTS / 2))
    system.check(spec)
    twice = system.run_twice([spec])
    figures(f"{spec.jobs} jobs, run twice: {twice}; recovery {system.recovery.longest:.1f} s")
    assert twice is None or twice.jobs <= twice.most, twice
    assert system.recovery.longest <= RECOVERY_SECONDS
