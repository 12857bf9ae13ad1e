"""What is recorded of the parameters that a function was given: what its jobs get."""

import datetime as dt
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import AfterValidator, SecretStr

from common import planning
from common.batch import BatchSpec
from common.options import read_options
from common.simulations.declare import MARK, Simulation, simulation
from services.worker.points import swept


@dataclass
class P:
    """Two numbers."""

    a: float = 1.0
    b: int = 2


class Scheme(Enum):
    """A choice."""

    EULER = "euler"


def one_of(kind: Any) -> Simulation:
    """A simulation with a required parameter k of this type, and one more."""

    def own(rng: object, *, k: kind, other: float = 1.5) -> None: ...

    found: Simulation = getattr(simulation(outputs={"x": float})(own), MARK)
    return found


def fields(declared: Simulation, **options: Any) -> dict[str, Any]:
    """As a specification has them, when that was read from ``batch.json``."""
    found = planning.fields(read_options({"simulation": declared.name, **options}), 1, declared)
    back: dict[str, Any] = json.loads(BatchSpec(1, 1, 42, **found).to_json(), parse_constant=pytest.fail)
    return back


CASES: list[tuple[Any, list[Any], list[Any]]] = [
    (int, ["3", "10", 2.0, True], [3, 10, 2, 1]),
    (float, [1, "2.5", True], [1.0, 2.5, 1.0]),
    (float | None, [None, "2.5"], [None, 2.5]),
    (bool, ["yes", 0, True], [True, False, True]),
    (str, ["3", "a"], ["3", "a"]),
    (int | str, ["1", 1], ["1", 1]),
    (Any, ["1", 1, True, {"a": [1]}], ["1", 1, True, {"a": [1]}]),
    (P, [{"a": "4"}, {"b": 1}], [{"a": 4.0, "b": 2}, {"a": 1.0, "b": 1}]),
    (list[P], [[{"a": 4}], []], [[{"a": 4.0, "b": 2}], []]),
    (tuple[int, ...], [["1", 2]], [[1, 2]]),
    (Scheme, ["euler"], ["euler"]),
    (dt.date, ["2020-01-02T00:00"], ["2020-01-02"]),
    (Decimal, [0.5, 1, "1.10"], [0.5, 1, "1.10"]),
    (dt.timedelta, [5, "PT1M"], [5, "PT1M"]),
    # What would not give back the same value.
    (Annotated[float, AfterValidator(math.radians)], [180, "90"], [180, "90"]),
    (Annotated[float, AfterValidator(lambda k: k + 1)], [2, -3.0], [2, -3.0]),
    (Annotated[list[float], AfterValidator(np.array)], [[1, 2]], [[1, 2]]),
    (Annotated[str, AfterValidator(lambda k: object())], ["a"], ["a"]),
    (SecretStr, ["abc"], ["abc"]),
    (set[str], [["b", "a", "c"]], [["b", "a", "c"]]),
]


@pytest.mark.parametrize(("kind", "given", "wanted"), CASES)
def test_a_value_is_recorded_as_a_job_gets_it(kind: Any, given: list[Any], wanted: list[Any]) -> None:
    """At a point of any sort of sweep, and alone; a job that is started from it gets what one of the given would."""
    declared = one_of(kind)
    axes = fields(declared, sweep={"axes": {"k": given}})["sweep"]["axes"]["k"]
    points = fields(declared, sweep={"points": [{"k": value} for value in given]})["sweep"]["points"]
    alone = [fields(declared, parameters={"k": value})["parameters"] for value in given]
    assert json.dumps(axes) == json.dumps(wanted)
    assert points == alone == [{"k": value} for value in axes]
    for value, typed in zip(axes, given, strict=True):
        one, other = declared.check({"k": value})["k"], declared.check({"k": typed})["k"]
        assert type(one) is type(other)
        assert np.array_equal(one, other) or type(one) is object
    assert fields(declared, sweep={"axes": {"k": axes}})["sweep"]["axes"]["k"] == axes


def test_the_column_of_a_sweep_has_the_parameters_type() -> None:
    """However its values were typed; what is not swept is recorded so, too."""
    given = {"axes": {"k": ["3", "10", 2.0, True]}}
    spec = BatchSpec(1, 4, 42, **planning.fields(
        read_options({"simulation": "own", "parameters": {"other": "2"}, "sweep": given}), 4, one_of(int)
    ))  # fmt: skip
    assert swept(spec)["k"].at(np.arange(4)).to_pylist() == [3, 10, 2, 1]
    assert spec.parameters == {"other": 2.0}
