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
    pytest.mark.timeout(300),
]

# Some five seconds of work: longer than a disturbance takes to begin.
JOBS = 30_000
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
def running(busy: Compose) -> tuple[Compose, int]:
    """The project in the midst of a new batch, and the batch's id."""
    busy.up(worker=2)
    busy.wait_healthy(workers=2)
    busy.wait_completed()
    batch = busy.rerun()
    assert busy.wait_progress(JOBS // 20) < JOBS // 2
    return busy, batch


def finish(stack: Compose, batch: int) -> None:
    """Wait for the end, and check that nothing is missing, double, or somebody else's."""
    stack.wait_completed(batch)
    stack.check_complete(JOBS)
    assert {(stack.outputs / name).stat().st_uid for name in csv_files(stack.outputs)} == {OWNER}


def test_scaling_up_and_down_loses_nothing(running: tuple[Compose, int]) -> None:
    stack, batch = running
    assert len(csv_files(stack.outputs)) < JOBS, "the batch ended before it was disturbed"
    stack.up(worker=3)
    stack.up(worker=1)
    finish(stack, batch)
    assert len(stack.containers("worker")) == 1


@pytest.mark.parametrize("service", ["redis", "api", "worker", "flower"])
def test_restart_of_a_service(running: tuple[Compose, int], service: str) -> None:
    """The batch goes on, and is not enqueued again: same id, and nothing moved away."""
    stack, batch = running
    before = sorted(path.name for path in stack.outputs.iterdir() if path.is_dir() and path.name.isdecimal())
    assert len(csv_files(stack.outputs)) < JOBS, "the batch ended before it was disturbed"
    stack.compose("restart", service)
    finish(stack, batch)
    after = sorted(path.name for path in stack.outputs.iterdir() if path.is_dir() and path.name.isdecimal())
    assert after == before


def test_kill_9_of_a_worker(running: tuple[Compose, int]) -> None:
    stack, batch = running
    victim = stack.containers("worker")[0]
    assert len(csv_files(stack.outputs)) < JOBS, "the batch ended before it was disturbed"
    docker("kill", "--signal=KILL", victim)
    finish(stack, batch)


@pytest.mark.parametrize("way", ["pause", "disconnect"])
def test_worker_out_of_touch_for_longer_than_its_lease(running: tuple[Compose, int], way: str) -> None:
    """Its ranges run elsewhere meanwhile; when it is back its late commits are refused, and nothing counts twice."""
    stack, batch = running
    victim = stack.containers("worker")[0]
    network = f"{stack.project}_default"
    begin, end = {
        "pause": (("pause", victim), ("unpause", victim)),
        "disconnect": (("network", "disconnect", network, victim), ("network", "connect", network, victim)),
    }[way]
    docker(*begin)
    try:
        stack.wait_completed(batch)
    finally:
        docker(*end)
    finish(stack, batch)
    stack.wait_healthy(workers=2, timeout=90)
    said = stack.compose("exec", "--no-TTY", "api", "batchsim", "doctor").stdout
    assert f"batch {batch}: {JOBS:,} jobs, nothing wrong (ledger, files, and a sample run again)" in said


def test_another_num_jobs_starts_another_batch_and_keeps_the_old_files(busy: Compose) -> None:
    old = busy.wait_completed()
    busy.set(NUM_JOBS=7)
    busy.up(worker=2)
    assert busy.wait_completed(old + 1) == old + 1
    busy.check_complete(7)
    assert len(csv_files(busy.outputs / str(old))) == JOBS
