"""Parameters as ``batch.json`` and the results files have them: as a job gets them, in JSON's words."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from common.errors import InvalidInput
from common.simulations.declare import Simulation, as_json

_PLAIN = (int, float, str, bool, type(None))


def recorded(simulation: Simulation, values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Of the given parameters those of these names; one that JSON would not give back as it is stays as it was given.

    Raises :class:`InvalidInput` naming the field.
    """
    model = simulation.read(values)
    found = simulation.by_name(model)
    given = {name: values[name] for name in names}
    said = {name: _in_json(simulation, model, name, found[name], value) for name, value in given.items()}
    other = {name: text for name, text in said.items() if not _same(text, given[name])}
    if not other:
        return given
    try:
        back = simulation.check_each({**values, **other})
    except InvalidInput:
        return given
    # What a validator has converted, it would convert again.
    return given | {name: text for name, text in other.items() if _same(found[name], back[name])}


def _in_json(simulation: Simulation, model: BaseModel, name: str, found: Any, given: Any) -> Any:
    """A value as JSON has it, or as it was given."""
    if type(found) in _PLAIN:
        return as_json(found)
    if isinstance(found, set | frozenset):
        # Their order as a list is another in each process.
        return given
    field = dict(zip(simulation.names, type(model).model_fields, strict=True))[name]
    try:
        text = as_json(model.model_dump(mode="json", by_alias=True, include={field}, warnings=False)[name])
    except (PydanticSerializationError, KeyError, ValueError, TypeError):
        return given
    # An amount of time or money is written as a text; who gave numbers has a column of numbers.
    return given if isinstance(text, str) and isinstance(given, int | float) else text


def _same(one: Any, other: Any) -> bool:
    """Whether they are equal and of one type; arrays cannot say."""
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001 - whatever a type of the user's does when it is compared
        return False
