"""A batch goes on while its containers are scaled, restarted and killed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_harness import Compose, csv_files, docker

pytestmark = [
    pytest.mark.containers,
    pytest.mark.xdist_group("containers"),
    pytest.mark.chaos,
    pytest.mark.timeout(300, func_only=True),
]

# Some five seconds of work: longer than a disturbance takes to begin.
JOBS = 30_000
# How many batches may be half done before we see that they have begun.
TRIES = 5
OWNER = 4321


@pytest.fixture(scope="module")
def busy(image: str, place: Path) -> Iterator[Compose]:
    """A project with two workers and a large batch, on a folder of a user of its own."""
    outputs = place / "outputs"
    outputs.mkdir()
    os.chown(outputs, OWNER, OWNER)
    settings = {"NUM_JOBS": JOBS, "LEASE_SECONDS": 3, "SLICE_SECONDS": 0.5, "RUN_AS": f"{OWNER}:{OWNER}"}
    with Compose(image, place, **settings) as compose:
        compose.up(worker=2)
        compose.wait_healthy(workers=2)
        compose.wait_completed()
        yield compose


@pytest.fixture
def idle(busy: Compose) -> Compose:
    """The project with both its workers and nothing to do."""
    busy.up(worker=2)
    busy.wait_healthy(workers=2)
    busy.wait_completed()
    return busy


def begun(stack: Compose) -> int:
    """The id of a new batch that we are in the first half of; another one when that was over before we looked."""
    for _ in range(TRIES):
        batch = stack.rerun()
        if stack.wait_progress(JOBS // 20) < JOBS // 2:
            return batch
        stack.wait_completed(batch)
    raise AssertionError(f"the first half of {TRIES} batches was missed")


def finish(stack: Compose, batch: int) -> None:
    """Wait for the end, and check that nothing is missing, double, or somebody else's."""
    stack.wait_completed(batch)
    stack.check_complete(JOBS)
    assert {(stack.outputs / name).stat().st_uid for name in csv_files(stack.outputs)} == {OWNER}


def test_scaling_up_and_down_loses_nothing(idle: Compose) -> None:
    batch = begun(idle)
    idle.up(worker=3)
    idle.up(worker=1)
    finish(idle, batch)
    assert len(idle.containers("worker")) == 1


@pytest.mark.parametrize("service", ["redis", "api", "worker", "flower"])
def test_restart_of_a_service(idle: Compose, service: str) -> None:
    """The batch goes on, and is not enqueued again: same id, and nothing moved away."""
    batch = begun(idle)
    before = sorted(path.name for path in idle.outputs.iterdir() if path.is_dir() and path.name.isdecimal())
    idle.compose("restart", service)
    finish(idle, batch)
    after = sorted(path.name for path in idle.outputs.iterdir() if path.is_dir() and path.name.isdecimal())
    assert after == before


def test_kill_9_of_a_worker(idle: Compose) -> None:
    # Before the batch begins: Compose may take seconds to say it.
    victim = idle.containers("worker")[0]
    batch = begun(idle)
    docker("kill", "--signal=KILL", victim)
    finish(idle, batch)


@pytest.mark.parametrize("way", ["pause", "disconnect"])
def test_worker_out_of_touch_for_longer_than_its_lease(idle: Compose, way: str) -> None:
    """Its ranges run elsewhere meanwhile; when it is back its late commits are refused, and nothing counts twice."""
    victim = idle.containers("worker")[0]
    network = f"{idle.project}_default"
    begin, end = {
        "pause": (("pause", victim), ("unpause", victim)),
        "disconnect": (("network", "disconnect", network, victim), ("network", "connect", network, victim)),
    }[way]
    batch = begun(idle)
    docker(*begin)
    try:
        idle.wait_completed(batch)
    finally:
        docker(*end)
    finish(idle, batch)
    idle.wait_healthy(workers=2, timeout=90)
    said = idle.compose("exec", "--no-TTY", "api", "batchsim", "doctor").stdout
    assert f"batch {batch}: {JOBS:,} jobs, nothing wrong (ledger, files, and a sample run again)" in said


def test_another_num_jobs_starts_another_batch_and_keeps_the_old_files(busy: Compose) -> None:
    old = busy.wait_completed()
    busy.set(NUM_JOBS=7)
    busy.up(worker=2)
    assert busy.wait_completed(old + 1) == old + 1
    busy.check_complete(7)
    assert len(csv_files(busy.outputs / str(old))) == JOBS
