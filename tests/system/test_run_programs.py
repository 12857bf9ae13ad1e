"""``batchsim run`` of programs, shell lines and sbatch scripts, and ``batchsim reproduce`` of what they left."""

import contextlib
import csv
import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.support import differences, environment, files, python, start, wait_for

pytestmark = pytest.mark.usefixtures("redis_binary")

MODEL = """#!/bin/sh
# Prints its words and its environment as JSON.
echo "log of $JOB_INDEX" >&2
printf '{"x": %s, "drawn": %s, "task": %s, "param": "%s"}\\n' "$2" "$1" "$SLURM_ARRAY_TASK_ID" "$PARAM_X"
"""
SCRIPT = """#!/bin/sh
#SBATCH --array=0-9:3%2
#SBATCH --job-name=night --output=%x_%a.txt
#SBATCH --gres=gpu:1
echo "task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT: $1"
printf 'y\\n%s\\n' "$SLURM_ARRAY_TASK_ID" > "$JOB_RESULT"
"""


def cli(home: Path, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run ``batchsim`` in a directory."""
    env = environment(WORKERS=2, LOG_LEVEL="ERROR", **settings)
    command = python("-m", "batchsim", *arguments)
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def place(home: Path) -> Path:
    """A directory with a program and a script."""
    (home / "model").write_text(MODEL)
    (home / "model").chmod(0o755)
    (home / "job.sh").write_text(SCRIPT)
    return home


def test_a_swept_program(place: Path) -> None:
    """Each job has its point, index and seed; what it printed besides is kept."""
    words = ("--seed", "5", "--array", "21-40", "--param", "x=1,2", "--replications", "10", "--outputs", "drawn,task")
    done = cli(place, "run", *words, "--", "./model", "{seed}", "{x}")
    assert done.returncode == 0, done
    outputs = place / "outputs"
    with (outputs / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["COMPLETED"] * 20
    assert [int(row["x"]) for row in rows] == [1] * 10 + [2] * 10
    assert [float(row["task"]) for row in rows] == list(range(21, 41))
    assert len({row["drawn"] for row in rows}) == 20
    one = (outputs / "job_11.csv").read_text().splitlines()
    assert one[0] == "x,drawn,task,param"
    assert (one[1].split(",")[0], one[1].split(",")[2:]) == ("2", ["31", "2"])
    assert (outputs / "logs" / "1_31.err").read_text() == "log of 11\n"


def test_a_script(place: Path) -> None:
    """Its #SBATCH lines are read, what they cannot have is named, and its result is the file that it wrote."""
    done = cli(place, "run", "--script", "job.sh", "--outputs", "y", "word {index}")
    assert done.returncode == 0, done
    assert "job.sh, line 4: --gres=gpu:1 is not supported" in done.stderr
    outputs = place / "outputs"
    assert files(outputs) == {f"job_{i}.csv": f"y\n{task}\n".encode() for i, task in enumerate((0, 3, 6, 9), 1)}
    said = {path.name: path.read_text() for path in (outputs / "logs").iterdir()}
    assert said == {f"night_{task}.txt": f"task {task} of 4: word {i}\n" for i, task in enumerate((0, 3, 6, 9), 1)}
    spec = json.loads((outputs / "batch.json").read_text())
    assert (spec["simulation"], spec["throttle"], spec["jobs"]) == ("night", 2, 4)


def test_a_shells_line(place: Path) -> None:
    """Runs in a shell because it was asked for; values come by the environment, and are never run."""
    line = 'printf \'{"n": %s}\\n\' "$(printf %s "$PARAM_TEXT" | wc -c)"'
    done = cli(place, "run", "--jobs", "2", "--outputs", "n", "--param", "text=$(touch bad)", "--shell", line)
    assert done.returncode == 0, done
    assert files(place / "outputs") == {f"job_{i}.csv": b"n\r\n12\r\n" for i in (1, 2)}
    assert not (place / "bad").exists()


def test_without_a_shell_nothing_is_run(place: Path) -> None:
    """A word with a shell's signs is a word."""
    done = cli(place, "run", "--jobs", "1", "--param", "t=a; touch bad", "--", "echo", "{t}", "$(touch bad)", "*")
    assert done.returncode == 0, done
    assert [path.read_text() for path in (place / "outputs" / "logs").iterdir()] == ["a; touch bad $(touch bad) *\n"]
    assert not (place / "bad").exists()


def test_what_fails_says_why(place: Path) -> None:
    """A declared output that does not come, and an exit code; the batch ends, and the exit code is 1."""
    done = cli(place, "run", "--jobs", "2", "--outputs", "y", "--", "./model", "{seed}", "1")
    assert done.returncode == 1, done
    done = cli(place, "run", "--jobs", "2", "--", "sh", "-c", "echo oops >&2; exit 3")
    assert (done.returncode, "exit code 3: oops" in done.stderr + done.stdout) == (1, True), done


def test_what_is_not_there_starts_nothing(place: Path) -> None:
    """One line, exit code 2, and no outputs directory."""
    for words, message in (
        (("--array", "1-5", "--", "./none"), "none: No such file"),
        (("--", "./job.sh"), "is not executable; chmod +x ./job.sh"),
        (("--", "no-such-program"), "there is no such program on the PATH"),
    ):
        done = cli(place, "run", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert message in done.stderr
    assert not (place / "outputs").exists()


def test_a_program_is_reproduced(place: Path) -> None:
    """From anywhere; the command that is shown gives the same files; a changed program is named, with exit code 1."""
    points = place / "points.json"
    points.write_text(json.dumps([{"x": 1, "label": "a,b"}, {"x": 2, "label": "5"}]))
    words = ("--seed", "5", "--from-json", "points.json", "--outputs", "drawn")
    done = cli(place, "run", *words, "--", "./model", "{seed}", "{x}", "{label}")
    assert done.returncode == 0, done
    points.unlink()
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    done = cli(elsewhere, "reproduce", str(place / "outputs"))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "2 jobs run again, 0 differ" in done.stdout
    where, line = done.stdout.split("By hand, in ")[1].split(": batchsim ", 1)
    assert where == str(place)
    assert cli(Path(where), *shlex.split(line), OUTPUT_DIR=elsewhere).returncode == 0
    assert differences(files(elsewhere), files(place / "outputs")) == []
    (place / "model").write_text(MODEL + "#")
    done = cli(elsewhere, "reproduce", str(place / "outputs"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert f"{place}/model has changed since the batch was submitted" in done.stderr
    done = cli(place, "doctor")
    assert done.returncode == 0, done
    assert "nothing was run again" in done.stdout


def test_a_declared_program(place: Path) -> None:
    """From ``simulations.toml`` in the working directory, with checked parameters."""
    (place / "simulations.toml").write_text(
        '[mine]\ncommand = ["./model", "{seed}", "{x}"]\noutputs = ["drawn"]\n[mine.parameters.x]\ntype = "int"\n'
    )
    done = cli(place, "run", "--simulation", "mine", "--param", "x=1,2", "--replications", "2", "--seed", "1")
    assert done.returncode == 0, done
    assert cli(place, "reproduce", "outputs").returncode == 0
    done = cli(place, "run", "--simulation", "mine", "--param", "x=1.5", "--jobs", "2")
    assert (done.returncode, "x is 1.5" in done.stderr) == (2, True), done


def test_a_program_gets_what_was_typed(place: Path) -> None:
    """To the letter; a sweep's numbers are numbers in the results; the command that is shown gives the same files."""
    words = ("--param", "x=1.10", "--param", "label=007", "--param", "k=0.10,0.20", "--seed", "5")
    program = ("sh", "-c", """printf '{{"said": "%s %s %s"}}' "$0" "$1" "$2" """, "{x}", "{label}", "{k}")
    done = cli(place, "run", *words, "--", *program)
    assert done.returncode == 0, done
    outputs = place / "outputs"
    assert [files(outputs)[f"job_{i}.csv"].splitlines()[1] for i in (1, 2)] == [b"1.10 007 0.1", b"1.10 007 0.2"]
    assert pyarrow.parquet.read_table(outputs / "results.parquet")["k"].to_pylist() == [0.1, 0.2]
    line = cli(place, "reproduce", "outputs").stdout.split(": batchsim ", 1)[1]
    assert "--from-json" not in line
    assert cli(place, *shlex.split(line), OUTPUT_DIR="again").returncode == 0
    assert differences(files(place / "again"), files(outputs)) == []


def running(word: str) -> list[int]:
    """The processes that ``sleep`` for exactly this word."""
    words = b"sleep\0" + word.encode() + b"\0"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [int(path.parent.name)] if path.read_bytes() == words else []
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_program_is_left_behind(place: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end the programs too, although each leads a process group of its own."""
    # Longer than all waits here: none of them ends by itself.
    word = f"777.{os.getpid()}"
    command = python("-m", "batchsim", "run", "--jobs", "4", "--", "sleep", word)
    batch = start(command, environment(WORKERS=2, LOG_LEVEL="ERROR"), place)
    try:
        wait_for(lambda: len(running(word)) == 2, 60, "two programs", batch.text)
        batch.signal(number)
        assert batch.wait() == code, batch.text()
        wait_for(lambda: not running(word), 60, "the end of the programs", lambda: running(word))
    finally:
        batch.kill()
        for pid in running(word):
            os.kill(pid, signal.SIGKILL)


def test_the_summary_names_files_that_are_there(place: Path) -> None:
    """A sweep has points.csv when its jobs give numbers."""
    words = ("run", "--param", "x=1,2", "--jobs", "2")
    for outputs in ([], ["--outputs", "drawn"]):
        done = cli(place, *words, *outputs, "--", "./model", "{seed}", "{x}", COLUMNS=200)
        assert done.returncode == 0, done
        assert ("points.csv" in done.stdout) is bool(outputs), done.stdout
        assert (place / "outputs" / "points.csv").exists() is bool(outputs)
