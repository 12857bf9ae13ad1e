"""What every built-in simulation promises: the same from the same stream, its outputs, limits that name the field."""

from typing import Any

import numpy as np
import pytest

from common.errors import InvalidInput
from common.seeds import Streams
from common.simulations.declare import Simulation
from common.simulations.european_option import european_option
from common.simulations.ising_2d import ising_2d
from common.simulations.mmc_queue import mmc_queue
from common.simulations.monte_carlo_pi import monte_carlo_pi
from common.simulations.percolation import percolation
from common.simulations.random_walk import random_walk
from common.simulations.sir_epidemic import sir_epidemic
from tests.unit.known_answers import declared

SMALLEST: dict[Any, dict[str, Any]] = {
    monte_carlo_pi: {"points": 1},
    european_option: {"paths": 2, "s0": 1e-6, "strike": 1e-6, "sigma": 0, "rate": -1, "maturity": 1e-300},
    # The lowest rates of both kinds together would not be a stable queue.
    mmc_queue: {"arrival_rate": 1e-6, "service_rate": 1.1e-6, "servers": 1, "customers": 2, "warm_up": 0},
    random_walk: {"steps": 1, "dimension": 1, "walkers": 1},
    ising_2d: {"size": 2, "temperature": 0.01, "sweeps": 1, "burn_in": 0},
    sir_epidemic: {"population": 1, "infected": 1, "r0": 0, "recovery": 0.001},
    percolation: {"size": 1, "p": 0},
}
ALL = [declared(function) for function in SMALLEST]
LIMITS = [
    (simulation, name, limits)
    for simulation in ALL
    for name, limits in simulation.parameters.model_json_schema()["properties"].items()
    if limits["type"] in ("integer", "number")
]


def results(simulation: Simulation, parameters: dict[str, Any], index: int = 1) -> dict[str, Any]:
    """One job's result."""
    found: dict[str, Any] = simulation.function(Streams(7).generator(index), **simulation.check(parameters))
    return found


def named(value: Any) -> str | None:
    """The name of a case for pytest."""
    return value.name if isinstance(value, Simulation) else value if isinstance(value, str) else ""


@pytest.mark.parametrize("simulation", ALL, ids=named)
def test_same_stream_gives_the_same(simulation: Simulation) -> None:
    """Whatever ran before and whatever the global generator's state; other jobs get something else."""
    first = results(simulation, {})
    np.random.seed(1)
    others = [results(simulation, {}, index) for index in (2, 3, 4)]
    assert results(simulation, {}) == first
    assert any(other != first for other in others)


@pytest.mark.parametrize("parameters", ["defaults", "smallest"])
@pytest.mark.parametrize("function", SMALLEST, ids=lambda function: function.__name__)
def test_outputs_are_those_declared(function: Any, parameters: str) -> None:
    """In their order, of exactly their types (NumPy's would not do as JSON), and finite."""
    simulation = declared(function)
    found = results(simulation, SMALLEST[function] if parameters == "smallest" else {})
    assert {name: type(value) for name, value in found.items()} == dict(simulation.outputs)
    assert list(found) == list(simulation.outputs)
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize(("simulation", "name", "limits"), LIMITS, ids=named)
def test_limits_are_refused_with_the_field(simulation: Simulation, name: str, limits: dict[str, Any]) -> None:
    """Every number has both limits; beyond them, and not being a number at all, is refused with its name."""
    low = limits.get("minimum", limits.get("exclusiveMinimum"))
    assert low is not None
    too_low = low if "exclusiveMinimum" in limits else low - 1
    for value in (too_low, limits["maximum"] + 1, 10**30, float("nan"), float("inf"), "many", None):
        with pytest.raises(InvalidInput, match=f"^{name} is ") as caught:
            simulation.check({name: value})
        assert caught.value.field == name


@pytest.mark.parametrize("simulation", ALL, ids=named)
def test_schema_explains_itself(simulation: Simulation) -> None:
    """A description of the whole and of each parameter; defaults that pass their own limits; nothing unknown."""
    schema = simulation.schema()
    assert schema["description"].endswith(".")
    assert all(parameter["description"] for parameter in schema["parameters"]["properties"].values())
    defaults = simulation.check({})
    assert simulation.check(defaults) == defaults
    with pytest.raises(InvalidInput, match="is not a parameter") as caught:
        simulation.check({"nonsense": 1})
    assert caught.value.field == "nonsense"


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        (european_option, "kind", "swap"),
        (european_option, "antithetic", "perhaps"),
        (ising_2d, "size", 15),
        (random_walk, "dimension", 2.5),
    ],
)
def test_other_nonsense_is_refused_with_the_field(function: Any, name: str, value: Any) -> None:
    """Words that are no choice, an odd checkerboard, half a dimension."""
    with pytest.raises(InvalidInput) as caught:
        declared(function).check({name: value})
    assert caught.value.field == name
