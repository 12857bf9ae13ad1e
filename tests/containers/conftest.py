"""The engine and the image that all container tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_harness import ROOT, Compose, docker


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine; without one the tests are skipped, but never in CI."""
    try:
        done = docker("info", "--format", "{{.ServerVersion}}", check=False, timeout=30)
        reason = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError:
        reason = "docker is not installed"
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"no Docker engine: {reason}")
    if reason:
        pytest.skip(f"no Docker engine: {reason}")


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The image, built from this checkout."""
    tag = "hpc-batch-sim:test"
    docker("build", "--tag", tag, ".", cwd=ROOT, timeout=600)
    return tag


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that Docker's other users can enter."""
    folder = tmp_path_factory.mktemp("containers")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and parent.name.startswith(("pytest-", "containers")):
            parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def stack(image: str, place: Path) -> Iterator[Compose]:
    """A project with five jobs and four workers, whose outputs folder Docker makes."""
    with Compose(image, place, NUM_JOBS=5, LEASE_SECONDS=3) as compose:
        compose.up(worker=4)
        compose.wait_healthy(workers=4)
        compose.wait_completed()
        yield compose
