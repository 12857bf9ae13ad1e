"""A long run in which random things go wrong at random times: ``make chaos SECONDS=300``."""

import os
import random
import time

import pytest

from common.batch import BatchSpec
from common.ledger import batches
from tests import support
from tests.chaos.system import RECOVERY_SECONDS, ChaosSystem, WayToDie

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def test_random_faults_lose_nothing(system: ChaosSystem) -> None:
    """After every batch each job is in one terminal state, its file is right, and the audit finds nothing."""
    chance = random.Random(SEED)
    faults: list[str] = [f"CHAOS_SEED={SEED}"]
    system.start_workers()
    end = time.monotonic() + SECONDS
    done = 0
    while time.monotonic() < end:
        specs = [submit(system, chance) for _ in range(chance.randint(1, 3))]
        for _ in range(chance.randint(1, 4)):
            # The random moment is the point of this run; nothing is waited for.
            time.sleep(chance.uniform(0.05, 2.0))
            way = chance.choice(list(WayToDie))
            faults.append(way.name)
            system.inflict(way)
            system.revive()
        for spec in specs:
            system.wait_finished(spec, RECOVERY_SECONDS + sum(s.jobs * s.job_seconds for s in specs))
            check(system, spec, faults)
            done += spec.jobs
    print(f"\nchaos: {SECONDS:.0f} s, {done:,} jobs, {len(faults) - 1} faults, nothing lost; {faults[0]}")  # noqa: T201


def submit(system: ChaosSystem, chance: random.Random) -> BatchSpec:
    """A batch of random size, of tiny or of longer jobs; tried again while Redis is away."""
    jobs, seconds = chance.choice([(chance.randint(1, 64), 0.05), (chance.randint(65, 5_000), 0.001), (20_000, 0.0)])
    seed = chance.randrange(2**53)
    return support.wait_for(lambda: system.try_submit(jobs, seconds, seed), RECOVERY_SECONDS, "a submit")


def check(system: ChaosSystem, spec: BatchSpec, faults: list[str]) -> None:
    """The promises, with the faults so far if one is broken."""
    try:
        system.check(spec)
    except AssertionError as error:
        raise AssertionError(f"{spec}, {batches.view(system.connection, spec.id)}, {faults}") from error
