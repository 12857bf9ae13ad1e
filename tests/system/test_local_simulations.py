"""``batchsim simulations --local`` and ``batchsim run`` in a directory whose files are broken, or take a name twice."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import environment, python

MINE = """
from batchsim import simulation

@simulation(outputs={"x": float})
def mine(rng, *, scale: float = 1.0):
    "A number."
    return {"x": scale * rng.random()}
"""


def cli(home: Path, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run ``batchsim`` in a directory."""
    command = python("-m", "batchsim", *arguments)
    env = environment(WORKERS=1, **settings)
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def place(home: Path) -> Path:
    """A ``simulations/`` with a good file, a broken one, and one with the name of a built-in simulation."""
    found = home / "simulations"
    found.mkdir()
    (found / "mine.py").write_text(MINE)
    (found / "bad.py").write_text("import json\n\ndef (:\n")
    (found / "walk.py").write_text(MINE.replace("def mine", "def random_walk"))
    return found


def test_the_list_of_a_directory(home: Path, place: Path) -> None:
    """What can be run, and each file that cannot be used with the line; as JSON with the traceback."""
    done = cli(home, "simulations", "--local")
    assert done.returncode == 0, done
    assert "mine(scale) -> x: A number." in done.stdout.splitlines()
    assert "random_walk(" not in done.stdout
    bad, walk = done.stderr.splitlines()
    assert bad.startswith(f"{place}/bad.py:3 cannot be used: SyntaxError: ")
    assert walk.startswith(f"{place}/walk.py [random_walk] cannot be used: random_walk is also built in")
    told = json.loads(cli(home, "simulations", "--local", "--json").stdout)
    assert told["broken"][f"{place}/bad.py"].startswith("Traceback (most recent call last)")
    assert {each["name"]: each["origin"] for each in told["simulations"]}["mine"] == f"{place}/mine.py"


def test_the_list_of_another_directory(home: Path, place: Path) -> None:
    """By the option, or by the setting."""
    place.rename(home / "other")
    assert "mine(" not in cli(home, "simulations", "--local").stdout
    assert "mine(" in cli(home, "simulations", "--local", "--simulations-dir", "other").stdout
    assert "mine(" in cli(home, "simulations", "--local", SIMULATIONS_DIR="other").stdout
    done = cli(home, "simulations", "--simulations-dir", "other")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done


@pytest.mark.usefixtures("redis_binary", "place")
def test_run_says_what_is_wrong_with_a_name(home: Path) -> None:
    """One line and exit code 2: where two are that share it, or which file may have had it."""
    for name, told in (("random_walk", "it is built in and in "), ("call", "simulations/bad.py:3 (SyntaxError: ")):
        done = cli(home, "run", "--simulation", name, "--jobs", "2")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert told in done.stderr
    assert not (home / "outputs" / "batch.json").exists()
