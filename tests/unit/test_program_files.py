"""The files of a program: found before anything starts, and bound to the batch by their contents."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import InvalidInput
from common.programs import files
from common.programs.admission import admit
from common.programs.files import changed_files, check_version, find_executable, literal, quoted, stamped
from common.programs.program import Program
from common.rows import COLUMNS


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a program, one that cannot be executed, and data."""
    for name, mode in (("model", 0o755), ("plain", 0o644), ("data.txt", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()
    return tmp_path


def program(place: Path, *command: str, shell: bool = False) -> Program:
    """A program of the directory."""
    return Program(command, str(place), name="model", shell=shell)


def test_what_can_be_run_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_executable(program(place, "./model")) == str(place / "model")
    assert find_executable(program(place, str(place / "model"))) == str(place / "model")
    assert find_executable(program(place, "echo hi", shell=True)) == "/bin/sh"
    monkeypatch.setenv("PATH", str(place))
    assert find_executable(program(Path("/"), "model")) == str(place / "model")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("./none", "none: No such file"),
        ("./plain", "plain: is not executable; chmod"),
        ("./folder", "folder: is a directory"),
        ("./model/x", "model/x: Not a directory"),
        ("no-such-program", "there is no such program on the PATH"),
        ("model", "write ./model"),
        ("./{x}", "cannot depend on a parameter"),
    ],
)
def test_what_cannot_is_named(place: Path, word: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        find_executable(program(place, word))
    assert refused.value.field == "program"


def test_words_that_name_files_are_bound(place: Path) -> None:
    given = stamped(program(place, "./model", "--data", "data.txt", "{seed}", "none", "folder", "a\0b"))
    assert list(given.files) == ["./model", "data.txt"]
    assert changed_files(given) == []
    check_version(given)
    assert Program.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    assert stamped(replace(given, version="", files={})) == given
    assert stamped(program(place, "./model", "--data", "data.txt")).version != given.version
    (place / "data.txt").write_text("other")
    assert changed_files(given) == ["data.txt"]
    with pytest.raises(InvalidInput, match=r"data\.txt has changed since") as refused:
        check_version(given)
    assert refused.value.field == "program"
    assert stamped(given).version != given.version
    (place / "model").unlink()
    assert changed_files(given) == ["./model", "data.txt"]


def test_a_file_that_comes_later_changes_nothing(place: Path) -> None:
    """Such as the one that the program writes."""
    given = stamped(program(place, "./model", "--log", "run.log"))
    (place / "run.log").write_text("1")
    check_version(given)


def test_names_in_the_path_and_a_shells_line_bind_nothing(place: Path) -> None:
    (place / "sh").write_text("data of this name")
    assert stamped(program(place, "sh", "x")).files == {}
    assert stamped(program(place, "./model data.txt", shell=True)).files == {}


def test_big_files_count_by_length_and_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_HASHED_BYTES", 4)
    given = stamped(program(place, "./model"))
    (place / "model").write_text("#!/bin/SH\n")
    os.utime(place / "model", ns=(1, 1))
    assert changed_files(given) == ["./model"]
    os.truncate(place / "model", 2**30)
    assert len(stamped(given).files["./model"]) == 16


@pytest.mark.parametrize("word", ["", "plain", "{", "a{b}c", "{{", "}{"])
def test_quoted_words_reach_the_program_as_they_are(word: str) -> None:
    assert literal(quoted(word)) == word


@pytest.mark.parametrize(
    ("command", "names", "outputs", "field"),
    [
        (("./model", "{x}"), ["y"], [], "command"),
        (("./model",), ["seed"], [], "seed"),
        (("./model",), ["x", "X"], [], "X"),
        (("./model",), ["a b"], [], "a b"),
        (("./model",), ["x"], ["x"], "outputs"),
        (("./model",), [], ["x", "x"], "outputs"),
        (("./model",), [], ["1"], "outputs"),
        (("./model",), [], ["state"], "outputs"),
        ((), [], [], "command"),
    ],
    ids=str,
)
def test_what_is_not_admitted(
    place: Path, command: tuple[str, ...], names: list[str], outputs: list[str], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        admit(program(place, *command), names, outputs)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("line", "instead"),
    [("echo {x}", "$PARAM_X"), ("echo '{seed}'", "$JOB_SEED"), ("a {task} b", "$SLURM_ARRAY_TASK_ID")],
)
def test_a_shells_line_takes_nothing_into_itself(place: Path, line: str, instead: str) -> None:
    """Or a value would be run; its own braces are its own."""
    with pytest.raises(InvalidInput, match="could be run as a command") as refused:
        admit(program(place, line, shell=True), ["x"], [])
    assert instead in refused.value.message
    admit(program(place, "{ echo ${x} {a,b} {}; }", shell=True), ["x"], [])


@pytest.mark.parametrize("name", ["a/b", "a\nb", "x" * 101])
def test_names_of_jobs(place: Path, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        admit(replace(program(place, "./model"), name=name), [], [])
    assert refused.value.field == "job_name"


def test_the_columns_are_those_of_the_results() -> None:
    from common.batch import BatchSpec
    from services.worker.finish import _schema

    assert tuple(_schema(BatchSpec(1, 1, 1, outputs=()), {}).names) == COLUMNS


def test_a_file_behind_an_equals_sign_counts(place: Path) -> None:
    """As ``--input=data.txt`` and ``in=data.txt``; not a value that is no file, or has a placeholder."""
    found = stamped(program(place, "./model", "--input=data.txt", "in=./plain", "--n=3", "--x={x}", "a=b=data.txt"))
    assert sorted(found.files) == ["./model", "./plain", "data.txt"]
    (place / "data.txt").write_text("other")
    assert changed_files(found) == ["data.txt"]
