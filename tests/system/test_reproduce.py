"""``batchsim run`` of one's own simulation, and ``batchsim reproduce`` of what it left."""

import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import differences, environment, files, python

MINE = '''
from batchsim import simulation

@simulation(outputs={"x": float})
def mine(rng, *, scale: float = 1.0):
    """A number."""
    return {"x": scale * rng.random()}
'''

pytestmark = pytest.mark.usefixtures("redis_binary")


def cli(home: Path, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run ``batchsim`` in a directory."""
    env = environment(WORKERS=2, **settings)
    command = python("-m", "batchsim", *arguments)
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def swept(home: Path) -> Path:
    """A directory with the file of a simulation, in which a sweep of it was run."""
    (home / "simulations").mkdir()
    (home / "simulations" / "mine.py").write_text(MINE)
    sweep = ("--param", "scale=1,10,100", "--replications", "4", "--seed", "5")
    done = cli(home, "run", "--simulation", "mine", *sweep)
    assert done.returncode == 0, done
    return home


def test_a_batch_is_reproduced(swept: Path) -> None:
    """Every byte is the same; the command that is shown gives the same files elsewhere."""
    with (swept / "outputs" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["scale"]) for row in rows] == [1] * 4 + [10] * 4 + [100] * 4
    done = cli(swept, "reproduce", "outputs")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "12 jobs run again, 0 differ" in done.stdout
    by_hand = done.stdout.split("By hand: batchsim ")[1].split()
    other = swept / "other"
    shutil.copytree(swept / "simulations", other / "elsewhere")
    assert cli(other, *by_hand, SIMULATIONS_DIR=other / "elsewhere").returncode == 0
    assert differences(files(other / "outputs"), files(swept / "outputs")) == []


def test_texts_and_lists_come_back(swept: Path) -> None:
    """A text that looks like a number and a list, typed and by the command that is shown."""
    text = MINE.replace("scale: float = 1.0", "name: str, v: list[float]")
    text = text.replace("scale * rng", "len(name) + sum(v) + rng")
    (swept / "simulations" / "mine.py").write_text(text)
    given = ("--name", "1.10", "--v", "[1,2]", "--jobs", "2", "--seed", "5")
    done = cli(swept, "run", "--simulation", "mine", *given, OUTPUT_DIR="one")
    assert done.returncode == 0, done
    spec = json.loads((swept / "one" / "batch.json").read_text())
    assert spec["parameters"] == {"name": "1.10", "v": [1, 2]}
    line = cli(swept, "reproduce", "one").stdout.split("By hand: batchsim ")[1]
    assert "--from-json" not in line
    assert cli(swept, *shlex.split(line), OUTPUT_DIR="two").returncode == 0
    assert json.loads((swept / "two" / "batch.json").read_text())["parameters"] == spec["parameters"]
    assert differences(files(swept / "two"), files(swept / "one")) == []


def test_what_differs_is_named(swept: Path) -> None:
    """A damaged CSV, another environment, another version of the file; and a directory without a batch."""
    (swept / "outputs" / "job_3.csv").write_bytes(b"x\r\n0.5\r\n")
    path = swept / "outputs" / "batch.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "environment": {"python": "2.7"}}))
    done = cli(swept, "reproduce", "outputs")
    assert done.returncode == 1
    assert "Job 1_3 gives other bytes" in done.stdout
    assert "12 jobs run again, 1 differ" in done.stdout
    assert "python was 2.7" in done.stdout
    (swept / "simulations" / "mine.py").write_text(MINE.replace("A number", "A random number"))
    done = cli(swept, "reproduce", "outputs")
    assert (done.returncode != 0, done.stderr.count("\n")) == (True, 1), done
    assert "the batch needs" in done.stderr
    done = cli(swept, "reproduce", "simulations")
    assert (done.returncode != 0, "There is no batch.json" in done.stderr) == (True, True), done
