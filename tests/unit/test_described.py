"""Parameters as their schema describes them: what a text is read as, what may be chosen, what must be given."""

from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from common.simulations.declare import MARK, simulation
from common.simulations.described import Described, describe, kinds_of
from common.spelling import Kind


class Colour(Enum):
    """Choices with a definition of their own in the schema."""

    RED = "red"
    BLUE = "blue"


@simulation(outputs={"y": float})
def own(
    rng: np.random.Generator,
    *,
    needed: int,
    x: Annotated[float, Field(gt=0, le=10, description="how far")] = 1.5,
    text: str = "",
    maybe: str | None = None,
    limit: Annotated[int | None, Field(ge=1, description="at most")] = None,
    colour: Colour = Colour.RED,
    other: Colour | None = None,
    mode: Literal["a", "b"] = "a",
    only: Literal["a"] = "a",
    step: Literal[1, 2] | None = None,
    weights: list[float] = [1.0],  # noqa: B006 - the schema's default
    table: dict[str, int] | None = None,
    either: int | str = 1,
    loud: bool = True,
    free: Any = None,
) -> dict[str, float]:
    """A parameter of each kind."""
    return {"y": x}


FOUND: dict[str, Described] = {each.name: each for each in describe(getattr(own, MARK).schema()["parameters"])}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Kind.NUMBER, ["needed", "x", "limit", "step"]),
        (Kind.TEXT, ["text", "maybe", "colour", "other", "mode", "only"]),
        (Kind.LIST, ["weights"]),
        (Kind.OBJECT, ["table"]),
        (Kind.ANY, ["either", "loud", "free"]),
    ],
)
def test_kinds(kind: Kind, names: list[str]) -> None:
    assert [name for name, each in FOUND.items() if each.kind is kind] == names


def test_what_must_be_given_and_what_it_is_otherwise() -> None:
    assert [name for name, each in FOUND.items() if each.required] == ["needed"]
    assert (FOUND["x"].default, FOUND["text"].default, FOUND["maybe"].default) == (1.5, "", None)
    assert FOUND["colour"].default == "red"


def test_choices() -> None:
    found = {name: each.choices for name, each in FOUND.items() if each.choices}
    colours = ("red", "blue")
    assert found == {"colour": colours, "other": colours, "mode": ("a", "b"), "only": ("a",), "step": (1, 2)}


def test_limits_and_words() -> None:
    assert (FOUND["x"].description, FOUND["x"].limits) == ("how far", {"exclusiveMinimum": 0, "maximum": 10})
    assert (FOUND["limit"].description, FOUND["limit"].limits) == ("at most", {"minimum": 1})


def test_the_schema_is_asked_for_once_it_is_needed() -> None:
    asked = []

    def schema() -> dict[str, Any]:
        asked.append(1)
        found: dict[str, Any] = getattr(own, MARK).schema()["parameters"]
        return found

    kinds = kinds_of(schema)
    assert asked == []
    assert [kinds("x"), kinds("text"), kinds("unknown")] == [Kind.NUMBER, Kind.TEXT, Kind.ANY]
    assert asked == [1]
