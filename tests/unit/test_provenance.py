"""The command that repeats a batch: what the command line reads from it is the batch."""

import hashlib
import json
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from batchsim import programs, verbs
from batchsim.cli import batchsim
from common import provenance
from common.batch import BatchSpec
from common.jobs import Jobs
from common.options import Options, read_options
from common.programs.program import Program
from common.provenance import PACKAGES, changes, command, environment
from common.simulations import registry
from common.simulations.programs import of_program
from common.spelling import Kind, Takes
from common.sweep import Sweep
from tests.support import REPO

SPECS: list[dict[str, Any]] = [
    {},
    {"simulation": "faulty", "parameters": {"raises": 0.1, "flaky": 1e-05}},
    {"retries": 3, "memory_limit_mb": 64, "time_limit_seconds": 1.5, "output_mode": "packed", "max_fails": 3},
    {"until": "ci_halfwidth(mean) < 0.5 % and n >= 1000", "throttle": 2, "priority": -5},
    {"simulation": "faulty", "parameters": {"kills": 0.0},
     "sweep": {"axes": {"raises": [0.1, 0.2], "flaky": [0, 0.3]}}},
    {"simulation": "faulty", "sweep": {"mode": "zip", "axes": {"raises": [0.1, 0.2], "flaky": [0.1, 0.3]},
                                       "replications": 4, "common_random_numbers": True}},
    {"simulation": "faulty", "sweep": {"axes": {"raises": [0.0], "flaky": [0.0]}, "replications": 5}},
    {"sweep": {"points": [{}], "replications": 6, "common_random_numbers": True}},
    {"simulation": "faulty", "sweep": {"points": [{"raises": 0.1}, {"raises": 0.3, "flaky": 0.1}]}},
    {"simulation": "faulty", "parameters": {"hangs": 0.0},
     "sweep": {"axes": {"raises": [i / 1000 for i in range(150)]}, "replications": 2}},
    {"job_seconds": 0.001234567, "parameters": {}},
]  # fmt: skip


def spec_of(values: dict[str, Any]) -> BatchSpec:
    """A specification as a submit makes it."""
    given = dict(values)
    jobs = 8
    if "sweep" in given:
        sweep = Sweep.from_dict(given["sweep"])
        given["sweep"], jobs = sweep.to_dict(), sweep.jobs
    name = given.get("simulation", "random_numbers")
    return BatchSpec(7, jobs, 42, outputs=tuple(registry.find(name).outputs), **given)


def typed(line: str) -> dict[str, Any]:
    """What ``batchsim run`` reads from a command line."""
    words = shlex.split(line)
    assert words[:2] == ["batchsim", "run"]
    with click.Context(batchsim) as parent:
        return dict(batchsim.commands["run"].make_context("run", words[2:], parent=parent).params)


def read_back(line: str) -> tuple[dict[str, Any], int | None, str]:
    """What ``batchsim run`` would run: fields of the batch, jobs, seed."""
    given = typed(line)
    assert programs.read(given) is None
    fields = read_options(verbs.batch_fields(given)).model_dump()
    return fields, int(given["jobs"]) if given["jobs"] else None, given["seed"]


@pytest.mark.parametrize("values", SPECS, ids=str)
def test_the_command_repeats_the_batch(tmp_path: Path, values: dict[str, Any]) -> None:
    """Same seed, same size, same options, and the same bytes of every job."""
    spec = spec_of(values)
    (tmp_path / "batch.json").write_text(spec.to_json())
    fields, jobs, seed = read_back(command(spec, tmp_path))
    again = spec_of({name: fields[name] for name in ("simulation", "parameters", "sweep") if fields[name]})
    assert seed == str(spec.seed)
    assert again.jobs == spec.jobs if spec.sweep else jobs == spec.jobs
    for name in set(Options.model_fields) - {"simulation", "parameters", "sweep", "max_fails"}:
        assert fields[name] == getattr(spec, name)
    assert fields["max_fails"] == (None if spec.max_fails is None else str(spec.max_fails))

    def outcome(jobs: Jobs, index: int) -> object:
        try:
            return jobs.result(index)
        except RuntimeError as error:
            return str(error)

    one, other = Jobs(spec), Jobs(again)
    assert [outcome(one, i) for i in range(1, spec.jobs + 1)] == [outcome(other, i) for i in range(1, spec.jobs + 1)]


AWKWARD = [
    "a,b", "1:2:3", "5", "0.5", "true", "TRUE", "nan", " x ", "it's", "$HOME", "", "a b", "ü", "-x", True, False,
    0, 0.0, 5, 5.0, 1e-300, 10**20, 10**400, -1, [1, 2], [], None, {"a": 1}, ["a,b", None], "[1", '"', "1_2", "007",
    "1.10", "x:1", "2:3", "a:b:c", "-0", "null",
]  # fmt: skip
TEXTS = st.text(max_size=8) | st.from_regex(r"[-+0-9.e:,\[\]\"{}a ]{0,8}", fullmatch=True)
SCALARS = TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


def come_back(place: Path, given: dict[str, Any], *kinds: Kind, program: Program | None = None) -> None:
    """See that the command of a batch with these parameters is read as the same ones, whatever their kind."""
    spec = BatchSpec(7, 2, 42, **given, program=program.to_dict() if program else {})
    (place / "batch.json").write_text(spec.to_json())
    line = command(spec, place)
    for kind in kinds:
        for none in {False, kind is not Kind.TYPED}:
            read, takes = typed(line), Takes(kind, none)
            programs.read(read)
            fields = read_options(verbs.batch_fields(read, lambda _, takes=takes: takes)).model_dump()
            again, before = ([got["parameters"], got["sweep"]] for got in (fields, vars(spec)))
            assert json.dumps(again, sort_keys=True) == json.dumps(before, sort_keys=True), line


@pytest.mark.parametrize("value", AWKWARD, ids=repr)
@pytest.mark.parametrize("swept", [False, True], ids=["fixed", "swept"])
def test_any_parameter_comes_back_as_it_was(tmp_path: Path, value: Any, swept: bool) -> None:
    """By ``--param`` where that reads it so, else from the batch's own file."""
    given: dict[str, Any] = {"parameters": {"p": value}}
    if swept:
        given = {"sweep": Sweep.from_dict({"axes": {"p": [value, 7]}}).to_dict()}
    come_back(tmp_path, given, *kinds_of_value(value, 7 if swept else value))
    come_back(tmp_path, given, Kind.TYPED, program=Program(("true",), "/"))


def kinds_of_value(*values: Any) -> list[Kind]:
    """The kinds of parameters that can have them: a number is of none that takes texts only."""
    texts = all(isinstance(value, str) for value in values)
    return [Kind.ANY, Kind.NUMBER, *([Kind.TEXT] if texts else [])]


@for_all(st.lists(VALUES, min_size=1, max_size=3), st.booleans())
def test_whatever_the_values_are(values: list[Any], of_program: bool) -> None:
    """One is fixed, several are a sweep; of a simulation and of a program."""
    given: dict[str, Any] = {"parameters": {"p": values[0]}}
    if len(values) > 1:
        given = {"sweep": Sweep.from_dict({"axes": {"p": values}}).to_dict()}
    kinds = [Kind.TYPED] if of_program else kinds_of_value(*values)
    with TemporaryDirectory() as place:
        come_back(Path(place), given, *kinds, program=Program(("true",), "/") if of_program else None)


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (["5"], """--param 'p="5"'"""),
        (["null"], """--param 'p="null"'"""),
        (["a,b"], """--param 'p="a,b"'"""),
        ([[1, 2]], "--param 'p=[1, 2]'"),
        (["a"], "--param p=a"),
        ([0.1, 2], "--param p=0.1,2"),
    ],
)
def test_what_can_be_typed_is_written(tmp_path: Path, values: list[Any], written: str) -> None:
    """And not left to a file, which the command would need besides."""
    sweep = Sweep.from_dict({"axes": {"p": values}}).to_dict() if len(values) > 1 else {}
    spec = BatchSpec(7, 2, 42, parameters={} if sweep else {"p": values[0]}, sweep=sweep)
    assert written in command(spec, tmp_path)


PROGRAMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"command": ("./model", "--seed", "{seed}", "it's {x}", "a b", "")}, {"outputs": ("e", "m")}),
    ({"command": ("sh", "-c", "echo $1"), "array": "0-6:2", "name": "night"}, {"throttle": 3, "jobs": 4}),
    ({"command": ("echo $JOB_INDEX | cat",), "shell": True, "name": "shell"}, {"parameters": {"x": "a,b"}}),
    ({"command": ("/bin/sh", "./job.sh"), "stdout": "%x", "stderr": "%x"}, {"time_limit_seconds": 60.0}),
    ({"command": ("/bin/sh", "./job.sh"), "stdout": "%x"}, {"memory_limit_mb": 60}),
    ({"command": ("/bin/sh", "./job.sh"), "stderr": "%a.log"}, {"retries": 2}),
    ({"command": ("a{{b}}", "--", "--seed")}, {"sweep": {"mode": "points", "points": [{"x": 1}], "replications": 8,
                                                        "common_random_numbers": False}}),
]  # fmt: skip


@pytest.mark.parametrize(("program", "given"), PROGRAMS, ids=str)
def test_the_command_repeats_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: dict[str, Any], given: dict[str, Any]
) -> None:
    """The same words, array, logs, outputs and options."""
    monkeypatch.chdir(tmp_path)
    own = Program(**{"directory": str(tmp_path), "name": "model", **program})
    spec = BatchSpec(**{"id": 7, "jobs": 8, "seed": 42, "simulation": own.name, "outputs": (), **given,
                        "program": own.to_dict()})  # fmt: skip
    (tmp_path / "batch.json").write_text(spec.to_json())
    read = typed(command(spec, tmp_path))
    chosen = programs.read(read)
    assert chosen is not None
    assert (chosen.program, chosen.outputs) == (own, spec.outputs)
    assert read["jobs"] == (None if spec.sweep or own.array else "8")
    fields = read_options(chosen.options(verbs.batch_fields(read, lambda _: Takes(Kind.TYPED)))).model_dump()
    for name in set(Options.model_fields) - {"max_fails"}:
        assert fields[name] == getattr(spec, name), name


def test_the_file_is_where_the_batch_lies() -> None:
    """Without a place that is known, where it is by default."""
    sweep = {"mode": "points", "points": [{"x": 1}], "replications": 1, "common_random_numbers": False}
    assert "--from-json outputs/7/batch.json" in command(BatchSpec(7, 1, 1, sweep=sweep))
    assert "--from-json outputs/batch.json" in command(BatchSpec(7, 1, 1, sweep=sweep, startup=True))


def test_the_environment_is_json() -> None:
    """Python, packages, platform, source; nothing that names a person or a machine."""
    found = environment(registry.find("random_walk"))
    assert json.loads(json.dumps(found)) == found
    assert set(found["packages"]) == set(PACKAGES)
    assert str(Path.home()) not in json.dumps(found)


def test_a_built_in_one_has_the_hash_of_its_source() -> None:
    """Each its own; and that of a program is of its files."""
    found = {name: environment(registry.find(name))["source"] for name in registry.BUILT_IN}
    assert len(set(found.values())) == len(registry.BUILT_IN)
    source = (REPO / "common" / "simulations" / "random_walk.py").read_bytes()
    assert found["random_walk"] == hashlib.sha256(source).hexdigest()[:16]
    program = Program(("./model",), "/", version="0123")
    assert environment(of_program("model", program, ()))["source"] == "0123"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory ``own`` with a simulation, which imports scipy, and pyarrow by a module beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    place = tmp_path / "own"
    place.mkdir()
    (place / "mine.py").write_text(MINE)
    (place / "beside.py").write_text("import pyarrow.csv, os.path\n")
    yield place
    registry.use(None)


MINE = """
import json, scipy.stats, beside
from batchsim import simulation

@simulation(outputs={"x": float})
def mine(rng, *, a: float = 1.5):
    return {"x": a}
"""


def test_the_packages_that_a_simulation_imports(mine: Path) -> None:
    """With their versions, beside ours."""
    registry.use("own")
    found = environment(registry.find("mine"))
    assert set(found["packages"]) == {*PACKAGES, "scipy", "pyarrow"}
    assert found["packages"]["scipy"] == version("scipy")
    assert changes(found) == []
    other = {**found, "python": "2.7", "packages": {**found["packages"], "scipy": "0.1", "gone": "1"}, "image": "x"}
    assert changes(other) == [
        f"python was 2.7, here it is {found['python']}",
        "gone was 1, here it is unknown",
        f"scipy was 0.1, here it is {version('scipy')}",
    ]


def test_the_image_is_what_the_container_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one nothing is said of it."""
    found = registry.find("random_walk")
    for digest in ("sha256:12", ""):
        monkeypatch.setenv("IMAGE_DIGEST", digest)
        provenance._here.cache_clear()
        assert environment(found).get("image", "") == digest
    provenance._here.cache_clear()


@pytest.mark.parametrize("given", ["own", "./own", "simulations", ""])
def test_the_command_names_the_directory_that_was_named(mine: Path, given: str) -> None:
    """As it was written; not the usual one, nor for what does not lie there."""
    if "own" not in given:
        mine.rename(mine.parent / "simulations")
    registry.use(given)
    named = ["--simulations-dir", given] if "own" in given else []
    for name, words in (("mine", named), ("random_walk", [])):
        found = registry.find(name)
        spec = BatchSpec(1, 2, 42, simulation=name, version=found.version, environment=environment(found))
        line = command(spec)
        assert shlex.split(line) == ["batchsim", "run", "--seed", "42", *words, "--jobs", "2", "--simulation", name]
        assert typed(line)["simulations_dir"] == (words[1] if words else None)
    assert "--simulations-dir there " in command(spec, simulations_dir="there")
