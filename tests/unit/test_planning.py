"""What a submit asks for: how many jobs, and the parameters as a program gets them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import planning
from common.batch import BatchSpec
from common.errors import InvalidInput
from common.options import read_options
from common.programs.program import Program
from common.simulations import registry
from common.simulations.declare import Simulation
from common.simulations.programs import of_program

TEN = {"axes": {"x": [1, 2]}, "replications": 5}


def plan(jobs: int | None, *, array: str = "", outputs: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    """The fields of a batch of a program."""
    asked = read_options({"simulation": "model", **options})
    simulation: Simulation = planning.simulation_of(asked, Program(("sh", "-c", ""), "/", array=array), outputs)
    count = planning.size(jobs, asked, simulation)
    return {"jobs": count, **planning.fields(asked, count, simulation)}


@pytest.mark.parametrize(
    ("jobs", "array", "sweep", "count"),
    [(7, "", {}, 7), (None, "0-9:2", {}, 5), (5, "0-9:2", {}, 5), (None, "", TEN, 10), (None, "1-10", TEN, 10)],
)
def test_sizes(jobs: int | None, array: str, sweep: dict[str, Any], count: int) -> None:
    assert plan(jobs, array=array, sweep=sweep)["jobs"] == count


@pytest.mark.parametrize(
    ("jobs", "array", "sweep", "message", "field"),
    [
        (None, "", {}, "jobs is missing", "jobs"),
        (7, "1-5", {}, "jobs is 7, but the array has 5", "jobs"),
        (7, "", TEN, "jobs is 7, but the sweep has 10", "jobs"),
        (None, "1-5", TEN, "array has 5 jobs, but the sweep has 10", "array"),
    ],
)
def test_sizes_that_differ_name_both(
    jobs: int | None, array: str, sweep: dict[str, Any], message: str, field: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        plan(jobs, array=array, sweep=sweep)
    assert refused.value.field == field


def test_fields_of_a_program() -> None:
    found = plan(3, outputs=("e",), parameters={"x": 1, "text": "a b"}, until="count(e) >= 5")
    assert (found["outputs"], found["version"], found["simulation"]) == (("e",), "", "model")
    assert found["program"]["command"] == ["sh", "-c", ""]
    assert found["parameters"] == {"x": 1, "text": "a b"}


@pytest.mark.parametrize("value", [[1], {"a": 1}, None, float("inf"), "a\0", "a" * 10_001])
def test_values_that_no_program_can_be_given(value: Any) -> None:
    for given in ({"parameters": {"x": value}}, {"sweep": {"axes": {"x": [1, value]}}}):
        with pytest.raises(InvalidInput) as refused:
            plan(None if "sweep" in given else 1, **given)
        assert refused.value.field == "x"


def test_every_point_of_a_program_has_all_parameters() -> None:
    """Or what stands for one in its command would have no value."""
    points = {"points": [{"x": 1, "y": 2}, {"x": 3}]}
    with pytest.raises(InvalidInput, match="y is missing in point 2") as refused:
        plan(None, sweep=points)
    assert refused.value.field == "y"


def test_a_rule_needs_an_output() -> None:
    with pytest.raises(InvalidInput, match="e is no output of model; there are none") as refused:
        plan(3, until="count(e) >= 5")
    assert refused.value.field == "until"


@pytest.mark.parametrize(
    ("jobs", "sweep", "count", "array"), [(None, {}, 5, "1-5"), (5, {}, 5, "1-5"), (7, {}, 7, ""), (None, TEN, 10, "")]
)
def test_a_declared_programs_array_is_only_a_default(
    jobs: int | None, sweep: dict[str, Any], count: int, array: str
) -> None:
    program = Program(("sh", "-c", ""), "/", array="1-5")
    declared = replace(of_program("model", program, ()), version="1")
    asked = read_options({"simulation": "model", "sweep": sweep})
    assert planning.size(jobs, asked, declared) == count
    assert planning.fields(asked, count, declared)["program"]["array"] == array


def test_a_sweep_has_a_stop_rule() -> None:
    """For each of its points; about an output that there is."""
    assert plan(None, outputs=("e",), sweep=TEN, until="ci_halfwidth(e) < 1")["until"]
    with pytest.raises(InvalidInput, match="price is no output") as refused:
        plan(None, outputs=("e",), sweep=TEN, until="ci_halfwidth(price) < 1")
    assert refused.value.field == "until"


MINE = """
import numpy as np
from batchsim import simulation

@simulation(outputs={"x": float})
def mine(rng, *, need: int, a: float = 1.5, text: str = "b", top: float = float("inf"), some: tuple[int, ...] = (1, 2)):
    return {"x": a}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """A simulation with defaults of many kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    (tmp_path / "simulations").mkdir()
    (tmp_path / "simulations" / "mine.py").write_text(MINE)
    return registry.find("mine")


ALL = {"a": 1.5, "text": "b", "top": "inf", "some": [1, 2]}


@pytest.mark.parametrize(
    ("parameters", "sweep", "left"),
    [
        ({"need": 1}, {}, {"a", "text", "top", "some"}),
        ({"need": 1, "a": 2, "text": "c"}, {}, {"top", "some"}),
        ({"need": 1, "a": 2, "text": "c", "top": 1, "some": [1]}, {}, set()),
        ({"need": 1, "top": 1}, {"axes": {"a": [1, 2], "text": ["c", "d"]}}, {"some"}),
        ({"top": 1}, {"mode": "zip", "axes": {"need": [1, 2], "text": ["c", "d"]}}, {"a", "some"}),
        ({"top": 1}, {"points": [{"need": 1, "a": 2}, {"need": 2, "a": 1, "some": [1]}, {"need": 3, "text": "c"}]},
         {"a", "text", "some"}),
    ],
)  # fmt: skip
def test_the_defaults_are_kept(
    mine: Simulation, parameters: dict[str, Any], sweep: dict[str, Any], left: set[str]
) -> None:
    """Of what was not given, or not at every point; as JSON, and beside the fields that a key is held against."""
    asked = read_options({"simulation": "mine", "parameters": parameters, "sweep": sweep})
    fields = planning.fields(asked, 5, mine)
    assert fields["parameters"] == parameters
    found = planning.defaults(fields, mine)
    assert found == {name: ALL[name] for name in left}
    spec = BatchSpec(1, 5, 1, defaults=found)
    assert json.loads(spec.to_json(), parse_constant=pytest.fail)["defaults"] == found


def test_a_program_leaves_nothing_to_defaults() -> None:
    found = planning.simulation_of(read_options({"simulation": "model"}), Program(("sh", "-c", ""), "/"))
    assert planning.defaults({"parameters": {"x": 1}, "sweep": {}}, found) == {}
