"""A long run in which random things go wrong at random times: ``make chaos SECONDS=300``."""

import os
import random
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from common.batch import BatchSpec, JobState
from common.outputs import directory
from tests import support
from tests.chaos import shell_program
from tests.chaos.acting import Acting
from tests.chaos.plan import Act, Wanted, rounds
from tests.chaos.system import RECOVERY_SECONDS, ChaosSystem
from tests.chaos.ways import WayToDie

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def test_the_same_seed_gives_the_same_faults() -> None:
    assert list(islice(rounds(SEED), 50)) == list(islice(rounds(SEED), 50))


def test_random_faults_lose_nothing(system: ChaosSystem, figures: Callable[[str], None]) -> None:
    """After every batch each job is in one terminal state, its file is right, and the audit finds nothing."""
    system.movable_clocks = True
    system.start_workers()
    story = [f"CHAOS_SEED={SEED}"]
    end = time.monotonic() + SECONDS
    jobs = faults = acts = twice = 0
    for planned in rounds(SEED):
        acting = Acting(system, submit(system, planned.batches))
        specs = acting.specs
        story += [f"{spec.id}: {wanted}" for spec, wanted in zip(specs, planned.batches, strict=True)]
        for step in planned.steps:
            pause(system, step.wait)
            done = acting.take(step)
            story += [done] if done else []
            faults += bool(done) and isinstance(step.what, WayToDie)
            acts += bool(done) and isinstance(step.what, Act)
        again = finish(system, acting, story)
        jobs, twice = jobs + sum(spec.jobs for spec in specs), twice + again
        if time.monotonic() > end:
            break
    least = "" if system.counts_exactly else "at least "
    figures(
        f"{SECONDS:.0f} s, {jobs:,} jobs, {faults} faults, {acts} acts of people, nothing lost; "
        f"{least}{twice:,} jobs run twice; longest recovery {system.recovery.longest:.1f} s; {story[0]}"
    )


def submit(system: ChaosSystem, planned: list[Wanted]) -> list[BatchSpec]:
    """Submit the batches of a round; tried again while Redis is away."""
    specs: list[BatchSpec] = []
    for wanted in planned:
        options = dict(wanted.options)
        if wanted.after:
            options["dependency"] = f"{wanted.after[0]}:{specs[-wanted.after[1]].id}"

        def accepted(wanted: Wanted = wanted, options: dict[str, Any] = options) -> BatchSpec | None:
            program = shell_program.program() if wanted.program else None
            return system.try_submit(wanted.jobs, wanted.job_seconds, wanted.seed, program=program, **options)

        specs.append(support.wait_for(accepted, RECOVERY_SECONDS, f"the submit of {wanted}", system.state))
    return specs


def pause(system: ChaosSystem, seconds: float) -> None:
    """Let the system work until the next fault: a random moment is the point of this run."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        system.look()
        time.sleep(min(left, 0.05))


def finish(system: ChaosSystem, acting: Acting, story: list[str]) -> int:
    """The promises, with the story so far if one is broken; returns the jobs that were run twice."""
    states: dict[int, list[JobState]] = {}
    try:
        acting.release()
        for spec in acting.specs:
            system.wait_finished(spec, RECOVERY_SECONDS + acting.seconds())
        for spec in acting.specs:
            states[spec.id] = system.check(spec, acting.decide(spec, states))
        twice = system.run_twice(acting.specs)
        assert twice is None or twice.jobs <= twice.most, twice
        assert system.recovery.longest <= RECOVERY_SECONDS, system.recovery.longest
    except AssertionError as error:
        raise AssertionError(f"{error}\nin {story}") from error
    for spec in acting.specs:
        # The small disk is to hold the next batches, too; what says that this one is finished stays.
        place = directory(system.root, spec)
        for path in [*place.glob("job_*.csv"), *place.glob("packed/*")]:
            path.unlink()
    return twice.jobs if twice else 0
