"""``make up``: the image is built, and the containers are told which one it is. Docker itself is a script here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import REPO, environment

DOCKER = """#!/bin/sh
echo "$*|$IMAGE_DIGEST" >> "$0.log"
case "$1 $2" in "image inspect") echo "sha256:of-$5" ;; esac
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the Makefile, .env.example, and a ``docker`` that notes what it was called with."""
    for name in ("Makefile", ".env.example"):
        shutil.copy(REPO / name, tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    return tmp_path


def made(place: Path, *words: str, **settings: str) -> list[list[str]]:
    """What ``make up`` called docker with, and IMAGE_DIGEST of each call."""
    (place / "bin" / "docker.log").unlink(missing_ok=True)
    env = environment(**settings)
    env["PATH"] = f"{place / 'bin'}:{env['PATH']}"
    subprocess.run(["make", "-s", "up", *words], cwd=place, env=env, capture_output=True, check=True)
    return [line.split("|") for line in (place / "bin" / "docker.log").read_text().splitlines()]


def test_the_containers_are_told_their_image(place: Path) -> None:
    """The one that was just built: by default, as .env says, and as the shell says."""
    build, inspect, up = made(place)
    assert build == ["compose build", ""]
    assert inspect[0].startswith("image inspect --format {{if .RepoDigests}}")
    assert up == ["compose up --detach --scale worker=4", "sha256:of-hpc-batch-sim:latest"]
    (place / ".env").write_text("IMAGE=registry.example/sim:1\n")
    assert made(place, "WORKERS=2")[-1] == [
        "compose up --detach --scale worker=2", "sha256:of-registry.example/sim:1"
    ]  # fmt: skip
    assert made(place, IMAGE="sim:2")[-1][1] == "sha256:of-sim:2"
