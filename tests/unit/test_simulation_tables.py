"""``simulations.toml``: what a table may say, what becomes of it, and that a broken one takes nothing else down."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import InvalidInput
from common.programs.program import Program
from common.simulations import registry
from common.simulations.table_values import Parameter, take_no_code
from common.simulations.tables import FILE

MODEL = "#!/bin/sh\necho '{\"energy\": 1}'\n"
ISING = """
[ising]
command = ["./model", "--seed", "{seed}", "--beta", "{beta}", "{label}"]
description = "2-D Ising model"
outputs = ["energy"]
[ising.parameters.beta]
type = "float"
default = 0.44
minimum = 0
maximum = 10
description = "inverse temperature"
[ising.parameters.label]
type = "str"
[ising.parameters.sweeps]
type = "int"
default = 10
choices = [10, 100]
[ising.parameters.cold]
type = "bool"
default = false
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a program and its table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    (tmp_path / "model").write_text(MODEL)
    (tmp_path / "model").chmod(0o755)
    (tmp_path / FILE).write_text(ISING)
    return tmp_path


def write(place: Path, text: str) -> registry.Registry:
    """What there is with this file."""
    (place / FILE).write_text(text)
    return registry.everything()


def test_a_table_is_a_simulation(place: Path) -> None:
    found = registry.find("ising")
    assert found.program is not None
    assert found.program.directory == str(place)
    assert found.program.name == "ising"
    assert dict(found.outputs) == {"energy": float}
    assert found.origin == f"{place / 'simulations.toml'} [ising]"
    assert registry.capabilities() == [f"ising:{found.version}"]
    schema = found.schema()
    assert schema["description"] == "2-D Ising model"
    known = schema["parameters"]["properties"]
    assert {name: each["type"] for name, each in known.items()} == {
        "beta": "number", "label": "string", "sweeps": "integer", "cold": "boolean",
    }  # fmt: skip
    assert (known["beta"]["minimum"], known["beta"]["maximum"], known["beta"]["default"]) == (0, 10, 0.44)
    assert known["beta"]["description"] == "inverse temperature"
    assert known["sweeps"]["enum"] == [10, 100]
    assert schema["parameters"]["required"] == ["label"]


def test_values_become_what_they_are_declared_as(place: Path) -> None:
    found = registry.find("ising").check({"beta": 1, "label": 5, "cold": True})
    assert found == {"beta": 1.0, "label": "5", "sweeps": 10, "cold": True}
    assert isinstance(found["beta"], float)


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_dt", "model_config", "model_dump"])
def test_a_parameter_may_be_called_like_a_method_of_pydantics(place: Path, name: str) -> None:
    found = write(place, f'[a]\ncommand = ["./model", "{{{name}}}"]\n[a.parameters.{name}]\ntype = "int"\n').found["a"]
    assert found.check({name: 5}) == {name: 5}
    assert list(found.schema()["parameters"]["properties"]) == [name]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "label"),
        ({"label": "a", "beta": -1}, "beta"),
        ({"label": "a", "beta": 11}, "beta"),
        ({"label": "a", "beta": float("nan")}, "beta"),
        ({"label": "a", "beta": "much"}, "beta"),
        ({"label": "a", "sweeps": 11}, "sweeps"),
        ({"label": "a", "sweeps": 10.5}, "sweeps"),
        ({"label": "a", "cold": 3}, "cold"),
        ({"label": "a", "mu": 1}, "mu"),
        ({"label": "--config=/etc/passwd"}, "label"),
        ({"label": "a\0b"}, "label"),
        ({"label": "a" * 10_001}, "label"),
        ({"label": "\ud800"}, "label"),
        ({"label": ["a"]}, "label"),
        ({"label": None}, "label"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_wrong_values_are_refused_with_the_field(place: Path, values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        registry.find("ising").check(values)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("[a]\n", "needs command or script"),
        ('[a]\ncommand = ["./model"]\nscript = "job.sh"', "needs command or script"),
        ('[a]\ncommand = "./model"', "[a]: command: input should be a valid list"),
        ('[a]\ncommand = []', "[a]: command"),
        ('[a]\ncommand = ["./none"]', "No such file"),
        ('[a]\ncommand = ["{seed}"]', "cannot depend on a parameter"),
        ('[a]\ncommand = ["./model", "{beta}"]', "{beta} in '{beta}' is nothing that a job has"),
        ('[a]\ncommand = ["./model"]\ncolour = "red"', "[a]: colour is not a field"),
        ('[a]\ncommand = ["./model"]\noutputs = ["1x"]', "'1x' is not a name"),
        ('[a]\ncommand = ["./model"]\noutputs = ["state"]', "state is a column"),
        ('[a]\ncommand = ["./model"]\noutputs = ["x", "x"]', "there twice"),
        ('[a]\ncommand = ["./model", "x"]\nshell = true', "list of one text"),
        ('[a]\nshell = true\ncommand = ["echo {x}"]\n[a.parameters.x]\ntype = "str"', '"$PARAM_X"'),
        ('[a]\nscript = "none.sh"', "No such file"),
        ('[a]\nscript = "model"\nstdout = "../x"', "inside of the batch's directory"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "double"', "[a.parameters.x]: type: input should be"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ndefault = 1', "[a.parameters.x]: type: field required"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "int"\ndefault = 1.5', "1.5 is no value of it"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "int"\ndefault = 5\nmaximum = 4', "5 is no value of it"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "str"\nminimum = 4', "minimum and maximum are for"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "int"\nminimum = 4\nmaximum = 3', "is above maximum"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "int"\nchoices = ["a"]', "'a' is no value of it"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "int"\nchoices = [1]\ndefault = 2', "none of its"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.seed]\ntype = "int"', "what every job has of its own"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype="int"\n[a.parameters.X]\ntype="int"', "both be PARAM_X"),
        ('[a]\ncommand = ["sh", "-c", "{x}"]\n[a.parameters.x]\ntype = "str"', "would run what a client writes in x"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "int"\nminimum = 0.5', "x: limit 0.5 is no int"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "int"\nminimum = -inf', "limit -inf is no int"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.x]\ntype = "float"\nmaximum = nan', "limit nan is no float"),
        ('[a]\nscript = "a\\u0000b"', "null byte"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.__config__]\ntype = "int"', "must not begin with _"),
        ('[a]\ncommand = ["./model"]\n[a.parameters.__base__]\ntype = "int"', "must not begin with _"),
        ('[a]\ncommand = ["./model"]\n[a.parameters._x]\ntype = "int"', "must not begin with _"),
        ('["a b"]\ncommand = ["./model"]', "letters, digits and _"),
        ("a = 3", "a is not in a table"),
        ("[a", "simulations.toml: "),
        ('[faulty]\ncommand = ["./model"]', "faulty is also built in"),
    ],
)  # fmt: skip
def test_a_broken_table_is_named_and_takes_nothing_else_down(place: Path, text: str, reasons: str) -> None:
    whole = text if text.startswith(("a =", "[a\n")) or text == "[a" else text + '\n[good]\ncommand = ["./model"]\n'
    found = write(place, whole)
    assert len(found.broken) == 1, found.broken
    ((origin, reason),) = found.broken.items()
    assert origin.startswith(str(place / "simulations.toml"))
    assert reasons in reason
    assert ("good" in found.found) == ("[good]" in whole)
    assert set(registry.BUILT_IN) - {"faulty"} <= set(found.found)


def test_what_nobody_foresaw_takes_nothing_else_down(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a table makes the code below raise, at reading it or at making a model of it."""

    def fails(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("common.simulations.tables.take_no_code", fails)
    found = write(place, ISING)
    assert found.broken == {f"{place / FILE} [ising]": f"{place / FILE} [ising]: RuntimeError: unforeseen"}
    assert set(found.found) == set(registry.BUILT_IN)
    monkeypatch.setattr("common.simulations.table_values._plain", fails)
    assert "RuntimeError: unforeseen" in str(write(place, ISING + "\n").broken)
    assert str(place / FILE) in write(place, f"a = {'[' * 5000}").broken


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "-lc", "echo hello {x}"],
        ["nice", "sh", "-c", "{x}"],
        ["perl", "-we", "print {x}"],
        ["perl", "-0777ne", "{x}"],
        ["sh", "-ec", "{x}"],
        ["bash", "-c", "-l", "echo {x}"],
        ["bash", "-c", 'run "$0"', "{x}"],
        ["timeout", "5", "/bin/bash", "-c", "{x}"],
        ["nice", "mpirun", "-n", "4", "python3.11", "-c", "print({x})"],
        ["env", "A=1", "python3", "-Ic", "{x}"],
        ["env", "-Sbash -c {x}"],
        ["nice", "node", "--eval", "{x}"],
        ["nice", "node", "--eval={x}"],
        ["nice", "su", "--command", "{x}"],
        ["sh", "-e", "{x}"],
    ],
    ids=" ".join,
)
def test_no_interpreter_runs_a_text(command: list[str]) -> None:
    """Wherever in the command it stands, and however its option is written; numbers and choices are another matter."""
    text, number = (Parameter.model_validate({"type": kind}) for kind in ("str", "int"))
    with pytest.raises(InvalidInput, match="would run what a client writes in x") as refused:
        take_no_code(Program(tuple(command), "/"), {"x": text})
    assert refused.value.field == "command"
    take_no_code(Program(tuple(command), "/"), {"x": number})


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "-eu", "job.sh", "{x}"],
        ["python3", "model.py", "-e", "2", "--size", "{x}"],
        ["env", "A=1", "./model", "-c", "2", "{x}"],
        ["shuf", "-e", "{x}"],
        ["./model", "-c", "{x}"],
    ],
    ids=" ".join,
)
def test_an_argument_is_no_code(command: list[str]) -> None:
    """Of a script, or of a program that is no interpreter."""
    take_no_code(Program(tuple(command), "/"), {"x": Parameter.model_validate({"type": "str"})})


def test_an_empty_text_lets_the_next_begin_the_word(place: Path) -> None:
    """All placeholders before the first character of the table's own begin the word."""
    given = "".join(f'[a.parameters.{name}]\ntype = "str"\ndefault = ""\n' for name in "uvw")
    assert write(place, f'[a]\ncommand = ["./model", "{{u}}{{v}}={{w}}"]\n{given}').broken == {}
    for name in "uv":
        with pytest.raises(InvalidInput, match="must not begin with -"):
            registry.find("a").check({name: "-la"})
    assert registry.find("a").check({"w": "-la"})["w"] == "-la"


def test_choices_make_a_text_safe_for_an_interpreter(place: Path) -> None:
    text = '[a]\ncommand = ["sh", "-c", "{x}"]\n[a.parameters.x]\ntype = "str"\nchoices = ["date", "true"]'
    assert write(place, text).broken == {}
    with pytest.raises(InvalidInput, match="must be one of date, true"):
        registry.find("a").check({"x": "rm"})


def test_a_script_gives_the_batchs_options(place: Path) -> None:
    (place / "job.sh").write_text("#!/bin/sh\n#SBATCH --array=0-9%2 -t 5 --mem=1G -J model\n#SBATCH -o %x.txt\necho\n")
    assert write(place, '[a]\nscript = "job.sh"').broken == {}
    found = registry.find("a")
    assert found.program is not None
    assert found.program.command == ("/bin/sh", "job.sh")
    assert (found.program.array, found.program.name, found.program.stdout) == ("0-9", "model", "%x.txt")
    assert found.defaults == {"time_limit_seconds": 300.0, "memory_limit_mb": 1024, "throttle": 2}
    (place / "job.sh").write_text("#!/bin/sh\n#SBATCH --dependency=afterok:3\n")
    assert "cannot have a --dependency" in next(iter(registry.everything().broken.values()))


def test_every_change_is_another_version(place: Path) -> None:
    """Of the program, of a file that its words name, and of the table; another directory is none."""
    (place / "data").write_text("1")
    text = '[a]\ncommand = ["./model", "data"]\n'
    write(place, text)
    seen = {registry.find("a").version}
    (place / "model").write_text(MODEL + "#")
    seen.add(registry.find("a").version)
    (place / "data").write_text("22")
    seen.add(registry.find("a").version)
    write(place, text + 'outputs = ["x"]')
    last = registry.find("a").version
    assert len(seen | {last}) == 4
    other = place / "other"
    other.mkdir()
    for name in ("model", "data", "simulations.toml"):
        (other / name).write_bytes((place / name).read_bytes())
        (place / name).unlink()
    (other / "model").chmod(0o755)
    registry.use(other)
    try:
        assert registry.find("a").version == last
    finally:
        registry.use(None)


def test_a_program_that_is_gone_is_no_capability(place: Path) -> None:
    assert registry.capabilities() != []
    (place / "model").unlink()
    assert registry.capabilities() == []
    with pytest.raises(InvalidInput, match=r"simulations\.toml \[ising\]") as refused:
        registry.find("ising")
    assert refused.value.field == "simulation"
