"""A batch's jobs as a pure function: nothing of one job reaches another, whatever its parameters are."""

from collections.abc import Callable
from typing import Any

import pytest

from common import planning
from common.batch import BatchSpec
from common.jobs import Jobs
from common.options import read_options
from common.simulations import registry
from common.simulations.declare import MARK, Simulation, simulation

Declare = Callable[[Callable[..., Any]], Simulation]


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


def test_what_cannot_be_changed_is_not_copied(declare: Declare) -> None:
    """Every job gets the same object, also of a tuple."""
    seen: list[Any] = []

    def look(rng: object, *, t: tuple[float, ...], text: str = "b") -> dict[str, Any]:
        seen.append((t, text))
        return {"x": len(text)}

    jobs = jobs_of(declare(look), parameters={"t": [1.0, 2.0]})
    assert [jobs.result(index)[1] for index in (1, 2)] == [(1.0,)] * 2
    assert all(one is other for one, other in zip(*seen, strict=True))
