"""Parameters as their schema describes them: what a text is read as, what may be chosen, what must be given."""

from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError

from common.simulations.declare import MARK, Simulation, simulation
from common.simulations.described import Described, describe, kinds_of
from common.spelling import Kind, Takes


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


def test_what_can_be_none() -> None:
    """What says so, in whichever of JSON Schema's ways, and what has no type."""
    assert [name for name, each in FOUND.items() if each.none] == ["maybe", "limit", "other", "step", "table", "free"]

    def more(
        rng: object,
        *,
        either: int | str | None,
        small: Literal["a", None],
        mixed: Literal["a", 1, None],
        whole: Literal["null"],
        what: Any,
        plain: Colour,
        nested: list[int | None],
        money: Decimal,
        untyped=1,  # type: ignore[no-untyped-def]
    ) -> None: ...

    declared = getattr(simulation(outputs={"x": float})(more), MARK)
    found = {each.name: each.none for each in describe(declared.schema()["parameters"])}
    assert [name for name, none in found.items() if none] == ["either", "small", "mixed", "what", "untyped"]
    for name, none in found.items():
        valid = not any(error["loc"] == (name,) for error in errors_of_none(declared, name))
        assert valid == none


def errors_of_none(declared: Simulation, name: str) -> list[Any]:
    """What pydantic says of None for this parameter, and of what is not given."""
    try:
        declared.parameters.model_validate({name: None})
    except ValidationError as error:
        return [each for each in error.errors() if each["type"] != "missing"]
    return []


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
    assert [kinds(name) for name in ("x", "limit", "text", "unknown")] == [
        Takes(Kind.NUMBER), Takes(Kind.NUMBER, none=True), Takes(Kind.TEXT), Takes(Kind.ANY)
    ]  # fmt: skip
    assert asked == [1]
