"""Sweeps: job → parameters in closed form, the same as writing all of them out."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidInput
from common.simulations.declare import MARK, simulation
from common.sweep import Sweep, all_points

VALUES = st.lists(st.integers(-5, 5), min_size=1, max_size=4)
AXES = st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1, max_size=4)


@simulation(outputs={"x": float})
def model(rng: np.random.Generator, *, a: int = 0, b: float = 1.0) -> dict[str, Any]:
    """Nothing."""
    return {"x": a + b}


MODEL = getattr(model, MARK)


@given(AXES, st.integers(1, 5))
def test_a_grid_is_the_product_of_its_axes(axes: dict[str, list[int]], replications: int) -> None:
    sweep = Sweep.from_dict({"mode": "grid", "axes": axes, "replications": replications})
    written = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    found = [sweep.parameters(sweep.point(index)) for index in range(1, sweep.jobs + 1)]
    assert found == [point for point in written for _ in range(replications)]
    assert all_points(sweep) == written


@given(st.integers(1, 6), st.integers(1, 4))
def test_zip_takes_the_lists_side_by_side(length: int, replications: int) -> None:
    axes = {"a": list(range(length)), "b": list(range(10, 10 + length))}
    sweep = Sweep.from_dict({"mode": "zip", "axes": axes, "replications": replications})
    assert sweep.jobs == length * replications
    assert all_points(sweep) == [{"a": i, "b": 10 + i} for i in range(length)]


@given(st.integers(1, 50), st.integers(1, 50))
def test_streams(points: int, replications: int) -> None:
    """Each job has its own stream, or with common random numbers each replication."""
    given_points = {"points": [{"a": i} for i in range(points)], "replications": replications}
    own, common = Sweep.from_dict(given_points), Sweep.from_dict({**given_points, "common_random_numbers": True})
    jobs = range(1, own.jobs + 1)
    assert [own.stream(index) for index in jobs] == list(jobs)
    assert [common.stream(index) for index in jobs] == [r + 1 for _ in range(points) for r in range(replications)]


def test_ten_million_jobs_are_a_few_lines() -> None:
    sweep = Sweep.from_dict({"axes": {"a": list(range(100)), "b": list(range(100))}, "replications": 1000})
    assert sweep.jobs == 10_000_000
    assert sweep.parameters(sweep.point(10_000_000)) == {"a": 99, "b": 99}
    assert Sweep.from_dict(sweep.to_dict()) == sweep


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "sweep"),
        ({"axes": {}}, "sweep"),
        ({"axes": {"a": []}}, "a"),
        ({"axes": {"a": 3}}, "a"),
        ({"points": []}, "points"),
        ({"points": [3]}, "points"),
        ({"mode": "walk", "axes": {"a": [1]}}, "sweep"),
        ({"mode": "zip", "axes": {"a": [1], "b": [1, 2]}}, "sweep"),
        ({"axes": {"a": [1]}, "replications": 0}, "replications"),
        ({"axes": {"a": [1]}, "replications": True}, "replications"),
        ({"axes": {"a": [1]}, "replications": 1.5}, "replications"),
        ({"axes": {"a": [1]}, "replications": float("inf")}, "replications"),
        ({"axes": {"a": [1]}, "replications": 10**12}, "replications"),
        ({"axes": {name: list(range(1000)) for name in "abcd"}}, "sweep"),
        ({"axes": {"a": [1]}, "colour": "red"}, "sweep"),
    ],
)
def test_wrong_sweeps_name_the_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Sweep.from_dict(values)
    assert refused.value.field == field


def test_json_has_one_kind_of_number() -> None:
    assert Sweep.from_dict({"axes": {"a": [1]}, "replications": 1000.0}).to_dict()["replications"] == 1000
    assert isinstance(Sweep.from_dict({"axes": {"a": [1]}, "replications": 2.0}).jobs, int)


@pytest.mark.parametrize(
    ("values", "fixed", "field"),
    [
        ({"axes": {"c": [1]}}, {}, "c"),
        ({"axes": {"a": [1, "x"]}}, {}, "a"),
        ({"axes": {"a": [1]}}, {"a": 2}, "a"),
        ({"points": [{"a": 1}, {"b": "y"}]}, {}, "b"),
    ],
)
def test_values_are_checked_against_the_simulation(values: dict[str, Any], fixed: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Sweep.from_dict(values).check(MODEL, fixed)
    assert refused.value.field == field


def in_order(parameters: Mapping[str, Any]) -> None:
    """A check of what goes together."""
    if parameters["a"] > parameters["b"]:
        raise ValueError(f"a is {parameters['a']}: it must not be above b, {parameters['b']}")


@simulation(outputs={"x": float}, check=in_order)
def ordered(rng: np.random.Generator, *, a: int = 0, b: int = 1) -> dict[str, Any]:
    """Nothing."""
    return {"x": a + b}


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "zip", "axes": {"a": [1, 5], "b": [2, 6]}},
        {"axes": {"a": [1, 2], "b": [2, 3]}},
        {"points": [{"a": 5, "b": 6}, {}]},
    ],
)
def test_points_that_go_together(values: dict[str, Any]) -> None:
    """Each point is held against itself, and not against a mixture of points."""
    Sweep.from_dict(values).check(getattr(ordered, MARK), {})


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "zip", "axes": {"a": [1, 5], "b": [2, 4]}},
        {"axes": {"a": [1, 3], "b": [3, 2]}},
        {"axes": {"a": [1, 3]}},
        {"points": [{"a": 5, "b": 6}, {"a": 2}]},
    ],
)
def test_points_that_do_not(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="it must not be above b") as refused:
        Sweep.from_dict(values).check(getattr(ordered, MARK), {})
    assert refused.value.field == "a"


@pytest.mark.parametrize("name", ["state", "y"])
def test_a_column_of_the_results_cannot_be_swept(name: str) -> None:
    """Neither one that every batch has, nor an output: results.csv would have it twice."""

    @simulation(outputs={"y": float}, name="clash")
    def clash(rng: np.random.Generator, *, state: int = 1, y: int = 1) -> dict[str, float]:
        return {"y": 0.0}

    declared = getattr(clash, MARK)
    with pytest.raises(InvalidInput, match=f"{name} cannot be swept") as refused:
        Sweep.from_dict({"axes": {name: [1, 2]}}).check(declared, {})
    assert refused.value.field == name
    declared.check({name: 2})
