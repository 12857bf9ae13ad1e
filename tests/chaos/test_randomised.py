"""A long run in which random things go wrong at random times: ``make chaos SECONDS=300``."""

import os
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import pytest

from common.batch import BatchSpec
from common.outputs import directory
from tests import support
from tests.chaos.system import RECOVERY_SECONDS, ChaosSystem
from tests.chaos.ways import WayToDie

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


class Round(NamedTuple):
    """Batches to submit as (jobs, seconds of a job, seed), and faults as (seconds to wait before, which)."""

    batches: list[tuple[int, float, int]]
    faults: list[tuple[float, WayToDie]]


def rounds(seed: int) -> Iterator[Round]:
    """What happens in the run with this seed, without end; nothing that happens in the run changes it."""
    chance = random.Random(seed)
    while True:
        submits = [(*batch(chance), chance.randrange(2**53)) for _ in range(chance.randint(1, 3))]
        ways = [(chance.uniform(0.05, 1.5), chance.choice(list(WayToDie))) for _ in range(chance.randint(2, 5))]
        yield Round(submits, ways)


def batch(chance: random.Random) -> tuple[int, float]:
    """Jobs and seconds of a job: few or many, shorter or longer than a slice."""
    few, long = (chance.randint(1, 64), 0.05), (chance.randint(8, 40), 0.5)
    many, medium = (chance.randint(65, 5_000), 0.001), (chance.randint(500, 2_000), 0.01)
    # The large ones take longest to check, file by file.
    return chance.choices([few, long, many, medium, (20_000, 0.0), (60_000, 0.0)], [6, 4, 6, 6, 3, 1])[0]


def test_the_same_seed_gives_the_same_faults() -> None:
    assert list(islice(rounds(SEED), 50)) == list(islice(rounds(SEED), 50))


def test_random_faults_lose_nothing(system: ChaosSystem, figures: Callable[[str], None]) -> None:
    """After every batch each job is in one terminal state, its file is right, and the audit finds nothing."""
    system.movable_clocks = True
    system.start_workers()
    story = [f"CHAOS_SEED={SEED}"]
    end = time.monotonic() + SECONDS
    jobs = faults = twice = 0
    for planned in rounds(SEED):
        specs = [submit(system, *wanted) for wanted in planned.batches]
        story += [f"{spec.id}: {spec.jobs} of {spec.job_seconds} s" for spec in specs]
        for seconds, way in planned.faults:
            pause(system, seconds)
            if way.needs_volume and system.volume is None:
                continue
            story.append(way.name)
            system.inflict(way)
            faults += 1
        for spec in specs:
            system.wait_finished(spec, RECOVERY_SECONDS + sum(s.jobs * s.job_seconds for s in specs))
        again = check(system, specs, story)
        jobs, twice = jobs + sum(spec.jobs for spec in specs), twice + again
        if time.monotonic() > end:
            break
    least = "" if system.counts_exactly else "at least "
    figures(
        f"{SECONDS:.0f} s, {jobs:,} jobs, {faults} faults, nothing lost; {least}{twice:,} jobs run twice; "
        f"longest recovery {system.recovery.longest:.1f} s; {story[0]}"
    )


def submit(system: ChaosSystem, jobs: int, seconds: float, seed: int) -> BatchSpec:
    """Submit a batch; tried again while Redis is away."""
    return support.wait_for(lambda: system.try_submit(jobs, seconds, seed), RECOVERY_SECONDS, "a submit")


def pause(system: ChaosSystem, seconds: float) -> None:
    """Let the system work until the next fault: a random moment is the point of this run."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        system.look()
        time.sleep(min(left, 0.05))


def check(system: ChaosSystem, specs: list[BatchSpec], story: list[str]) -> int:
    """The promises, with the faults so far if one is broken; returns the jobs that were run twice."""
    try:
        for spec in specs:
            system.check(spec)
        twice = system.run_twice(specs)
        assert twice is None or twice.jobs <= twice.most, twice
        assert system.recovery.longest <= RECOVERY_SECONDS
    except AssertionError as error:
        raise AssertionError(f"{error}\nin {story}") from error
    for spec in specs:
        # The small disk is to hold the next batches, too; what says that this one is finished stays.
        for path in directory(system.root, spec).glob("job_*.csv"):
            path.unlink()
    return twice.jobs if twice else 0
