"""A batch's jobs as a pure function: nothing of one job reaches another, whatever its parameters are."""

import datetime as dt
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel

from common import planning
from common.batch import BatchSpec
from common.jobs import Jobs
from common.options import read_options
from common.simulations import registry
from common.simulations.declare import MARK, Simulation, simulation

Declare = Callable[[Callable[..., Any]], Simulation]


@dataclass(eq=False)
class Bag:
    """It can be hashed, and yet it changes."""

    xs: list[float] = field(default_factory=lambda: [1.0])


class Grid(BaseModel):
    """A model with a dataclass in it."""

    bag: Bag = Bag()


class Scheme(Enum):
    """A choice."""

    EULER = "euler"


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Makes a function the simulation that every name stands for."""

    def as_simulation(function: Callable[..., Any]) -> Simulation:
        found: Simulation = getattr(simulation(outputs={"x": float})(function), MARK)
        monkeypatch.setattr(registry, "find", lambda name: found)
        return found

    return as_simulation


def jobs_of(declared: Simulation, **options: Any) -> Jobs:
    """Six jobs, as a worker has them after they were submitted."""
    fields = planning.fields(read_options({"simulation": declared.name, **options}), 6, declared)
    return Jobs(BatchSpec.from_json(BatchSpec(1, 6, 42, **fields).to_json()))


CHANGING = [
    (list[float], [1.0], [1.0], lambda xs: xs.append(2.0)),
    (Any, [1.0], [1.0], lambda xs: xs.append(2.0)),
    (dict[str, float], {"a": 1.0}, {"a": 1.0}, lambda xs: xs.update(b=2.0)),
    (set[float], {1.0}, [1.0], lambda xs: xs.add(2.0)),
    (tuple[list[float]], ([1.0],), [[1.0]], lambda xs: xs[0].append(2.0)),
    (Annotated[list[float], AfterValidator(lambda xs: array("d", xs))], [1.0], [1.0], lambda xs: xs.append(2.0)),
    (Bag, Bag(), {"xs": [1.0]}, lambda bag: bag.xs.append(2.0)),
    (list[Bag], [Bag()], [{"xs": [1.0]}], lambda bags: bags[0].xs.append(2.0)),
    (Grid, Grid(), {"bag": {"xs": [1.0]}}, lambda grid: grid.bag.xs.append(2.0)),
]


@pytest.mark.parametrize(("kind", "default", "given", "change"), CHANGING)
@pytest.mark.parametrize("how", ["default", "fixed", "swept"])
def test_a_job_cannot_change_the_next_ones_parameters(
    declare: Declare, kind: Any, default: Any, given: Any, change: Callable[[Any], None], how: str
) -> None:
    """Neither what was given nor the function's own default: or results would depend on who ran what before."""

    def changes(rng: object, *, xs: kind = default) -> dict[str, Any]:
        before = str(xs)
        change(xs)
        return {"x": 1, "before": before, "after": str(xs)}

    options = {
        "default": {},
        "fixed": {"parameters": {"xs": given}},
        "swept": {"sweep": {"axes": {"xs": [given] * 3}, "replications": 2}},
    }[how]
    before = str(default)
    jobs = jobs_of(declare(changes), **options)
    first = jobs.result(1)
    assert [jobs.result(index) for index in (2, 3, 4, 3)] == [first] * 4
    assert str(default) == before


@pytest.mark.parametrize(
    ("kind", "given", "got"),
    [
        (Bag, {"xs": [2]}, "Bag(xs=[2.0])"),
        (Grid, {"bag": {}}, "Grid(bag=Bag(xs=[1.0]))"),
        (list[Bag], [{}, {"xs": []}], "[Bag(xs=[1.0]), Bag(xs=[])]"),
        (Bag | None, {}, "Bag(xs=[1.0])"),
        (Scheme, "euler", "<Scheme.EULER: 'euler'>"),
        (dt.date, "2020-01-02", "datetime.date(2020, 1, 2)"),
        (Decimal, "1.10", "Decimal('1.10')"),
    ],
)
def test_a_job_gets_what_is_declared(declare: Declare, kind: Any, given: Any, got: str) -> None:
    """And not what JSON has for it; alone and at each point of a sweep."""

    def look(rng: object, *, p: kind) -> dict[str, Any]:
        seen.append(repr(p))
        return {"x": 1}

    declared, seen = declare(look), list[str]()
    for options in ({"parameters": {"p": given}}, {"sweep": {"axes": {"p": [given, given]}}}):
        jobs = jobs_of(declared, **options)
        assert [jobs.result(index)[1] for index in (1, 2)] == [(1.0,)] * 2
    assert seen == [got] * 4


def test_what_cannot_be_changed_is_not_copied(declare: Declare) -> None:
    """Every job gets the same object, also of a tuple."""
    seen: list[Any] = []

    def look(rng: object, *, t: tuple[float, ...], text: str = "b") -> dict[str, Any]:
        seen.append((t, text))
        return {"x": len(text)}

    jobs = jobs_of(declare(look), parameters={"t": [1.0, 2.0]})
    assert [jobs.result(index)[1] for index in (1, 2)] == [(1.0,)] * 2
    assert all(one is other for one, other in zip(*seen, strict=True))
