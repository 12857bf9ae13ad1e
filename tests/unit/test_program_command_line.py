"""Programs as people type them: what ``batchsim run`` makes of its words, and what it refuses before it starts."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from batchsim import cli, programs, verbs
from batchsim.cli import batchsim
from batchsim.programs import Chosen
from common.errors import InvalidInput
from common.programs.program import Program
from common.settings import Settings
from services.local import run as embedded

SCRIPT = """#!/bin/bash -e
#SBATCH --array=1-10%2 --time=5
#SBATCH --job-name=night --mem 1G
#SBATCH -o %x_%a.txt
#SBATCH --gres=gpu:1
./model "$1"
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a program and a script."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_text("#!/bin/sh\n")
    (tmp_path / "model").chmod(0o755)
    (tmp_path / "job.sh").write_text(SCRIPT)
    return tmp_path


def typed(*words: str) -> tuple[Chosen | None, dict[str, Any]]:
    """What these words name: the program, and the batch's fields."""
    with click.Context(batchsim) as parent:
        given = dict(batchsim.commands["run"].make_context("run", list(words), parent=parent).params)
    chosen = programs.read(given)
    fields = verbs.batch_fields(given)
    return chosen, chosen.options(fields) if chosen else fields


def test_words_after_two_dashes_are_the_program(place: Path) -> None:
    chosen, fields = typed("--array", "1-9:2%3", "--param", "x=1", "--", "./model", "--seed", "{seed}", "--", "--help")
    assert chosen is not None
    assert chosen.program == Program(
        ("./model", "--seed", "{seed}", "--", "--help"), str(place), array="1-9:2", name="model"
    )
    assert fields == {"simulation": "model", "throttle": 3, "parameters": {"x": 1}}


def test_all_options(place: Path) -> None:
    words = ("--outputs", "energy, m", "--job-name", "n", "--stdout", "%a.txt", "--stderr", "%a.log", "--throttle", "3")
    chosen, fields = typed(*words, "--array", "5%3", "--", "./model")
    assert chosen is not None
    assert chosen.outputs == ("energy", "m")
    assert (chosen.program.name, chosen.program.stdout, chosen.program.stderr) == ("n", "%a.txt", "%a.log")
    assert fields == {"simulation": "n", "throttle": 3}
    both, _ = typed("--stdout", "%a.txt", "--", "./model")
    assert both is not None
    assert both.program.stderr == "%a.txt", "in Slurm both go there"


def test_a_shells_line() -> None:
    chosen, fields = typed("--shell", "echo $PARAM_X | cat", "--param", "X=1")
    assert chosen is not None
    assert (chosen.program.command, chosen.program.shell) == (("echo $PARAM_X | cat",), True)
    assert fields["simulation"] == "shell"


def test_a_script_and_its_defaults(place: Path) -> None:
    chosen, fields = typed("--script", "job.sh", "{index}", "a b")
    assert chosen is not None
    assert chosen.program.command == ("/bin/bash", "-e", "./job.sh", "{index}", "a b")
    assert (chosen.program.array, chosen.program.stdout, chosen.program.stderr) == ("1-10", "%x_%a.txt", "%x_%a.txt")
    assert fields == {"simulation": "night", "throttle": 2, "time_limit_seconds": 300.0, "memory_limit_mb": 1024}
    assert [line.split(": ", 1)[0] for line in chosen.warnings] == ["job.sh, line 5"]


def test_the_command_line_comes_before_the_script() -> None:
    words = ("--array", "1-3", "--time-limit-seconds", "7", "--job-name", "day", "--throttle", "9", "--stderr", "e")
    chosen, fields = typed("--script", "job.sh", *words)
    assert chosen is not None
    assert (chosen.program.array, chosen.program.name, chosen.program.stderr) == ("1-3", "day", "e")
    assert fields == {"simulation": "day", "time_limit_seconds": 7.0, "memory_limit_mb": 1024, "throttle": 9}
    _, alone = typed("--script", "job.sh", "--array", "1-3")
    assert "throttle" not in alone, "the script's %2 was of its own array"


def test_braces_of_the_path_are_no_placeholders(place: Path) -> None:
    (place / "{x}.sh").write_text("#!/bin/sh\n")
    chosen, _ = typed("--script", "{x}.sh")
    assert chosen is not None
    assert chosen.program.command == ("/bin/sh", "./{{x}}.sh")


REFUSED = [
    (("--array", "1-3"), "--array is for programs"),
    (("--outputs", "x"), "--outputs is for programs"),
    (("--shell", "true", "--", "./model"), "--shell, --script or a program"),
    (("--shell", "true", "--script", "job.sh"), "--shell, --script or a program"),
    (("--simulation", "faulty", "--", "./model"), "a program or --simulation"),
    (("--array", "1-3%2", "--throttle", "4", "--", "./model"), "--array says %2 and --throttle says 4"),
    (("--array", "", "--", "./model"), "array: '' is not an index"),
    (("--script", "none.sh"), "none.sh: No such file"),
    (("--script", "job.sh", "--dependency", "afterok:7"), "has a private Redis, in which there is no other batch"),
    (("--resume", "--", "./model"), "--resume goes on with the batch as it was: leave the program out"),
    (("--resume", "--simulation", "faulty"), "leave --simulation out"),
    (("--resume", "--simulation", "faulty", "--raises", "0"), "leave --param out"),
    (("--resume", "--jobs", "5"), "leave --jobs out"),
    (("--resume", "--num-jobs", "5"), "leave --num-jobs out"),
    (("--resume", "--seed", "5"), "leave --seed out"),
    (("--resume", "--job-seconds", "1"), "leave --job-seconds out"),
    (("--resume", "--retries", "0"), "leave --retries out"),
    (("--resume", "--hold"), "leave --hold out"),
    (("--resume", "--zip"), "leave --zip out"),
    (("--resume", "--script", "job.sh"), "leave --script out"),
    (("--simulation", "faulty", "--raises", "0,0.1", "--jobs", "7"), "jobs is 7, but the sweep has 2; leave jobs out"),
    (("--simulation", "faulty", "--raises", "0,0.1", "--num-jobs", "7"), "jobs is 7, but the sweep has 2"),
    (("--simulation", "faulty", "--raises", "0:inf:1"), "must be three finite numbers"),
    (("--simulation", "none", "--x", "1"), "simulation is 'none'; there are"),
    (("--", "./none"), "none: No such file"),
    (("--", "no-such-program"), "no such program on the PATH"),
    (("--", "./job.sh"), "is not executable"),
    (("--", "./model", "{y}"), "{y} in '{y}' is nothing that a job has"),
    (("--shell", "echo {x}", "--param", "x=1"), 'write "$PARAM_X"'),
    (("--array", "1-3", "--jobs", "4", "--", "./model"), "jobs is 4, but the array has 3"),
    (("--array", "1-3", "--param", "x=1,2", "--", "./model"), "array has 3 jobs, but the sweep has 2"),
    (("--outputs", "a-b", "--", "./model"), "'a-b' is not a name"),
    (("--until", "count(y) >= 5", "--", "./model"), "until: y is no output of model; there are none"),
    (("--param", "x=[1,2]", "--", "./model"), "x is [1, 2]: a program takes numbers, texts, true and false"),
    (("--stdout", "../x", "--", "./model"), "inside of the batch's directory"),
    (("--time-limit-seconds", "-1", "--", "./model"), "time_limit_seconds is -1"),
]


@pytest.mark.parametrize("text", ["1_2", "007", "1.10", "True", "nan", "1e-3"])
def test_a_program_gets_a_text_as_it_was_typed(text: str) -> None:
    """And where a list of numbers is typed, numbers."""
    words = ("--param", f"x={text}", "--param", "y=0.10,0.20", "--", "./model")
    with click.Context(batchsim) as parent:
        given = dict(batchsim.commands["run"].make_context("run", list(words), parent=parent).params)
    chosen = programs.read(given)
    kinds = cli.kinds(chosen, None, Settings(_env_file=None))  # type: ignore[call-arg]
    fields = verbs.batch_fields(given, kinds)
    assert (fields["parameters"], fields["sweep"]["axes"]) == ({"x": text}, {"y": [0.1, 0.2]})


@pytest.mark.parametrize(
    ("words", "environment", "asked"),
    [
        (("--jobs", "2"), "", 2),
        (("--num-jobs", "2"), "7", 2),
        ((), "7", None),
        ((), "", None),
    ],
)
def test_only_a_number_that_is_typed_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], environment: str, asked: int | None
) -> None:
    """NUM_JOBS of the environment is what there is when nothing else is said."""
    found: list[Any] = []
    monkeypatch.setattr(embedded, "run", lambda _settings, **given: found.append(given["jobs"]) or 0)
    monkeypatch.setenv("NUM_JOBS", environment)
    done = CliRunner().invoke(batchsim, ["run", "--simulation", "faulty", "--raises", "0,0.1", *words])
    assert (done.exit_code, found) == (0, [asked]), done


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What was started: nothing is, by these tests."""
    found: list[Settings] = []
    monkeypatch.setattr(embedded, "run", lambda settings, **_: found.append(settings) or 0)
    return found


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: " ".join(value)[:50])
def test_what_is_refused(started: list[Settings], words: tuple[str, ...], message: str) -> None:
    """The error that becomes one line and exit code 2, before anything is started."""
    done = CliRunner().invoke(batchsim, ["run", *words], standalone_mode=False)
    assert isinstance(done.exception, InvalidInput), done
    assert message in done.exception.message
    assert started == []


def test_an_empty_dependency_is_none(place: Path, started: list[Settings]) -> None:
    (place / "job.sh").write_text("#!/bin/sh\n#SBATCH --dependency=afterok:7\n")
    assert CliRunner().invoke(batchsim, ["run", "--script", "job.sh", "--dependency", ""]).exit_code == 0
    assert len(started) == 1


def test_a_stray_word_is_no_program(started: list[Settings]) -> None:
    done = CliRunner().invoke(batchsim, ["run", "--jobs", "5", "ls"])
    assert (done.exit_code, started) == (2, [])
    assert "a program comes after --" in done.output


def test_help_shows_each_option_once() -> None:
    """In groups, of which the programs' come first."""
    text = CliRunner().invoke(batchsim, ["run", "--help"]).output
    for heading in ("What is run:", "How many jobs", "What the batch may do:", "Settings:"):
        assert heading in text
    names = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert len(names) == len(set(names))
    assert {"--script", "--array", "--param", "--throttle", "--workers", "--resume"} <= set(names)
