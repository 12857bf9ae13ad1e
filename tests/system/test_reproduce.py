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


def run_again(home: Path, *words: str, place: str = "outputs") -> tuple[int, str]:
    """Exit code and output of ``reproduce``, which says nothing on standard error."""
    done = cli(home, "reproduce", place, *words)
    assert done.stderr == "", done
    return done.returncode, done.stdout


@pytest.mark.parametrize("source", ["results.csv", "summary.json"])
def test_what_is_missing_differs(swept: Path, source: str) -> None:
    """By name where the results files tell; also when a sample is run again, and when nothing is left."""
    outputs = swept / "outputs"
    if source == "summary.json":
        (outputs / "results.csv").unlink()
    for index in (3, 7):
        (outputs / f"job_{index}.csv").unlink()
    code, said = run_again(swept, "--sample", "2")
    assert code == 1
    names = ": 1_3, 1_7\n" if source == "results.csv" else ".\n"
    assert f"2 jobs completed and have no CSV in outputs{names}" in said
    assert "2 jobs run again, 2 differ" in said
    for path in outputs.glob("job_*.csv"):
        path.unlink()
    code, said = run_again(swept)
    assert code == 1
    assert "12 jobs completed and have no CSV" in said
    assert "batch 1: nothing was run again" in said
    done = cli(swept, "doctor")
    assert (done.returncode, "12 jobs completed and have no CSV" in done.stdout) == (1, True), done


def test_what_did_not_complete_is_not_missing(home: Path) -> None:
    """A batch whose jobs failed is reproduced by those that completed; one without any by none."""
    given = ("--simulation", "faulty", "--seed", "1", "--jobs", "20")
    assert cli(home, "run", *given, "--raises", "0.3").returncode == 1
    code, said = run_again(home)
    assert code == 0, said
    assert 0 < int(said.split("batch 1: ")[1].split()[0]) < 20
    assert cli(home, "run", *given, "--raises", "1", OUTPUT_DIR=home / "none").returncode == 1
    code, said = run_again(home, place="none")
    assert (code, "nothing was run again" in said) == (1, True), said


def test_batch_json_says_all_that_is_needed(swept: Path) -> None:
    """The command among it, which gives the same files."""
    spec = json.loads((swept / "outputs" / "batch.json").read_text())
    assert spec["environment"]["source"] == spec["version"] != ""
    other = swept / "other"
    shutil.copytree(swept / "simulations", other / "simulations")
    program, *words = shlex.split(spec["command"])
    assert program == "batchsim"
    assert cli(other, *words).returncode == 0
    assert differences(files(other / "outputs"), files(swept / "outputs")) == []


def test_another_source_and_another_default_are_told(home: Path) -> None:
    """Of a built-in simulation, whose batches any version runs: the source only where the bytes differ, too."""
    assert cli(home, "run", "--simulation", "random_walk", "--jobs", "3", "--seed", "1").returncode == 0
    path = home / "outputs" / "batch.json"
    spec = json.loads(path.read_text())
    assert (spec["parameters"], spec["defaults"]["steps"]) == ({}, 100)
    spec["environment"]["source"] = "0123"
    spec["defaults"]["steps"] = 999
    path.write_text(json.dumps(spec))
    code, said = run_again(home)
    assert (code, "source" in said) == (0, False), said
    assert "steps was not given and was 999 by default, here it is 100\n" in said
    (home / "outputs" / "job_2.csv").write_bytes(b"x\r\n1\r\n")
    code, said = run_again(home)
    assert code == 1
    assert "The source of random_walk was 0123, here it is " in said
    for name in ("environment", "defaults", "command"):
        del spec[name]
    path.write_text(json.dumps(spec))
    code, said = run_again(home, "--sample", "3")
    assert (code, said.count("\n")) == (1, 2), said


def test_a_directory_of_simulations_that_was_named(home: Path) -> None:
    """It is part of the command; whoever leaves it out is told."""
    (home / "own").mkdir()
    (home / "own" / "mine.py").write_text(
        MINE.replace("rng.random()", "factor * rng.random()") + "from side import factor"
    )
    (home / "own" / "side.py").write_text("factor = 2.0")
    words = ("--simulation", "mine", "--jobs", "3", "--seed", "5")
    assert cli(home, "run", "--simulations-dir", "own", *words).returncode == 0
    done = cli(home, "reproduce", "outputs")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert "it was run with --simulations-dir own" in done.stderr
    code, said = run_again(home, "--simulations-dir", "own")
    assert (code, "3 jobs run again, 0 differ" in said) == (0, True), said
    by_hand = said.split("By hand: batchsim ")[1].split()
    assert cli(home, *by_hand, OUTPUT_DIR=home / "again").returncode == 0
    assert differences(files(home / "again"), files(home / "outputs")) == []
    (home / "own" / "side.py").write_text("factor = 3.0")
    done = cli(home, "reproduce", "outputs", "--simulations-dir", "own")
    assert (done.returncode, "the batch needs" in done.stderr) == (1, True), done
