"""Real containers are killed, paused and cut off at random while batches run; nothing is lost.

``CHAOS_SECONDS=90 CHAOS_SEED=7 pytest -m slow tests/containers/test_chaos_containers.py -rP``
"""

import json
import os
import random
import secrets
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from container_harness import Compose, csv_files, docker, inspect, wait_for

from tests.chaos.recovery import Progress, Recovery

pytestmark = [
    pytest.mark.containers,
    pytest.mark.xdist_group("containers"),
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(0),
]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
WORKERS = 3
LEASE_SECONDS = 3
# The promise.
RECOVERY_SECONDS = 20.0


class Way(Enum):
    """What happens to a container; then the engine, or whoever looks after it, brings it back."""

    KILL_WORKER = "docker kill of a worker"
    PAUSE_WORKER = "docker pause of a worker for longer than its lease"
    CUT_WORKER = "a worker without network for longer than its lease"
    KILL_REDIS = "docker kill of redis"
    PAUSE_REDIS = "docker pause of redis for longer than a lease"
    KILL_API = "docker kill of the api"

    @property
    def service(self) -> str:
        """Whose container it hits."""
        return self.name.partition("_")[2].lower()


class Round(NamedTuple):
    """Batches to submit as (jobs, seconds of a job, seed); faults as (seconds to wait before, which, victim)."""

    batches: list[tuple[int, float, int]]
    faults: list[tuple[float, Way, int]]


def rounds(seed: int) -> Iterator[Round]:
    """What happens in the run with this seed, without end; nothing that happens in the run changes it."""
    chance = random.Random(seed)
    sizes = [(60, 0.1), (30, 0.5), (3_000, 0.002), (20_000, 0.0)]
    while True:
        submits = [(*chance.choice(sizes), chance.randrange(2**53)) for _ in range(chance.randint(1, 3))]
        faults = [
            (chance.uniform(0.1, 2.0), chance.choice(list(Way)), chance.randrange(WORKERS))
            for _ in range(chance.randint(1, 3))
        ]
        yield Round(submits, faults)


class Chaos(Compose):
    """A project that is hurt, and asked whether it noticed."""

    def submit(self, jobs: int, seconds: float = 0.0, seed: int = 42) -> int:
        """Submit a batch, with the same key until the API has said that it is accepted; returns its id."""
        key = secrets.token_hex(8)
        body = json.dumps({"jobs": jobs, "seed": seed, "job_seconds": seconds}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        request = urllib.request.Request(f"{self.url}/batches", body, headers)

        def attempt() -> Any:
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    return json.load(response)
            except OSError as error:
                return {"error": str(error)}

        return int(wait_for(attempt, lambda seen: "id" in seen, 60, "a batch is accepted", self.logs)["id"])

    def look(self, batch: int) -> Any:
        """What the API says of the batch; {} while it cannot."""
        reply = self.get(f"/batches/{batch}", timeout=3)
        return reply.json if reply.status == 200 else {}

    def victim(self, service: str, number: int) -> str:
        """The container of a service, by a number that means the same one each time."""
        found = sorted(self.containers(service), key=lambda identity: inspect(identity)["Name"])
        return found[number % len(found)]

    def inflict(self, way: Way, number: int) -> None:
        """Hurt a container, and bring back what does not come back by itself."""
        victim = self.victim(way.service, number)
        network = f"{self.project}_default"
        if way.name.startswith("KILL"):
            docker("kill", victim)
            # The engine takes this kill for a wish of its user, and would not start the container again.
            docker("start", victim)
            return
        begin, end = ("pause", victim), ("unpause", victim)
        if way is Way.CUT_WORKER:
            begin, end = ("network", "disconnect", network, victim), ("network", "connect", network, victim)
        docker(*begin)
        try:
            time.sleep(LEASE_SECONDS * 1.5)  # the fault itself: it lasts longer than a lease
        finally:
            docker(*end)

    def rows(self, batch: int) -> list[dict[str, Any]]:
        """The batch's job table."""
        total = self.look(batch)["jobs"]
        pages = [
            self.get(f"/batches/{batch}/jobs?limit=10000&offset={offset}", timeout=30)
            for offset in range(0, total, 10_000)
        ]
        return [row for page in pages for row in page.json["jobs"]]


@pytest.fixture
def stack(image: str, place: Path, request: pytest.FixtureRequest) -> Iterator[Chaos]:
    """Three workers of one slot each; leases as the test wants them."""
    settings = {"NUM_JOBS": 5, "LEASE_SECONDS": request.param, "SLICE_SECONDS": 0.5}
    with Chaos(image, place, **settings) as chaos:
        chaos.up(worker=WORKERS)
        chaos.wait_healthy(workers=WORKERS)
        chaos.wait_completed()
        yield chaos


def test_the_same_seed_gives_the_same_faults() -> None:
    assert list(islice(rounds(SEED), 50)) == list(islice(rounds(SEED), 50))


@pytest.mark.parametrize("stack", [LEASE_SECONDS], indirect=True)
def test_random_faults_of_containers_lose_nothing(stack: Chaos) -> None:
    """After each round every batch is complete; after the last one the doctor, too, finds nothing."""
    recovery, story, jobs, faults = Recovery(), [f"CHAOS_SEED={SEED}"], 0, 0
    end = time.monotonic() + SECONDS
    for planned in rounds(SEED):
        found = {stack.submit(*wanted): wanted[0] for wanted in planned.batches}
        story += [f"{batch}: {size} jobs" for batch, size in found.items()]
        for seconds, way, number in planned.faults:
            watch(stack, list(found), recovery, seconds)
            story.append(way.name)
            stack.inflict(way, number)
            recovery.start()
            faults += 1
        wait_for(
            lambda found=found: watch(stack, list(found), recovery),  # type: ignore[misc]
            lambda progress: progress is not None and progress.finished,
            RECOVERY_SECONDS + 60, f"the end of {found} in {story}", stack.logs,
        )  # fmt: skip
        for batch, size in found.items():
            check(stack, batch, size)
        jobs += sum(found.values())
        if time.monotonic() > end:
            break
    stack.wait_healthy(workers=WORKERS, timeout=90)
    said = stack.compose("exec", "--no-TTY", "api", "batchsim", "doctor").stdout.splitlines()
    assert all("nothing wrong (ledger, files, and a sample run again)" in line for line in said), said
    assert recovery.longest <= RECOVERY_SECONDS, story
    print(  # noqa: T201
        f"\nchaos: {SECONDS:.0f} s, {jobs:,} jobs in {len(said)} batches, {faults} faults of containers, nothing lost; "
        f"longest recovery {recovery.longest:.1f} s; {' '.join(story)}"
    )


def watch(stack: Chaos, found: list[int], recovery: Recovery, seconds: float = 0.0) -> Progress | None:
    """Note the progress of these batches, for so long."""
    until = time.monotonic() + seconds
    while True:
        views = [stack.look(batch) for batch in found]
        progress = None
        if all(views):
            progress = Progress(sum(view["done"] for view in views), all(view["finished"] for view in views))
        recovery.look(progress)
        if time.monotonic() >= until:
            return progress
        time.sleep(0.05)


def check(stack: Chaos, batch: int, jobs: int) -> None:
    """Each job is COMPLETED once, and has its file."""
    assert stack.look(batch)["counters"] == {"COMPLETED": jobs}
    rows = stack.rows(batch)
    assert Counter(row["state"] for row in rows) == {"COMPLETED": jobs}
    assert [row["index"] for row in rows] == list(range(1, jobs + 1))
    assert csv_files(stack.outputs / str(batch)) == {f"job_{index}.csv" for index in range(1, jobs + 1)}


# The default of LEASE_SECONDS, on which the promise rests.
@pytest.mark.parametrize("stack", [15], indirect=True)
def test_jobs_of_a_killed_worker_run_elsewhere_soon(stack: Chaos) -> None:
    """The job that it was at is begun again by another worker within the promised time; the killed one stays away."""
    # One for each slot, so that nothing else waits when the lease runs out.
    jobs = WORKERS
    batch = stack.submit(jobs, seconds=5.0)
    busy = {"RUNNING": jobs}
    wait_for(lambda: stack.look(batch), lambda seen: seen.get("counters") == busy, 30, "slots at work", stack.logs)
    docker("kill", stack.victim("worker", 0))
    killed = time.time()
    wait_for(lambda: stack.look(batch), lambda seen: bool(seen.get("finished")), 120, "the end", stack.logs)
    check(stack, batch, jobs)
    again = [row["started"] - killed for row in stack.rows(batch) if row["attempt"] > 1]
    assert len(again) == 1, again
    print(f"\nchaos: the job of a killed worker container ran elsewhere after {again[0]:.1f} s")  # noqa: T201
    assert again[0] <= RECOVERY_SECONDS
