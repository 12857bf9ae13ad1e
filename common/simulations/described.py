"""A simulation's parameters as its JSON Schema describes them, for people who type their values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from common.spelling import Kind, Takes

Kinds = Callable[[str], Takes]

_KINDS = {
    "number": Kind.NUMBER,
    "integer": Kind.NUMBER,
    "string": Kind.TEXT,
    "array": Kind.LIST,
    "object": Kind.OBJECT,
}


@dataclass(frozen=True)
class Described:
    """One parameter; ``type`` is JSON Schema's word, or "any", and ``choices`` are all values that there are, if few.

    ``default`` is None when it has none, too: ``required`` tells.
    """

    name: str
    type: str
    required: bool
    default: Any
    description: str
    choices: tuple[Any, ...]
    #: JSON Schema's words for limits, such as "minimum", with their values.
    limits: Mapping[str, Any]
    #: Whether it can be None.
    none: bool = False

    @property
    def kind(self) -> Kind:
        """What a text is read as."""
        return _KINDS.get(self.type, Kind.ANY)


LIMITS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def describe(schema: Mapping[str, Any]) -> list[Described]:
    """Every parameter of a schema, in the order of the signature."""
    required, definitions = schema.get("required", ()), schema.get("$defs", {})
    return [
        _described(name, _flat(each, definitions), required=name in required, none=_takes_none(each, definitions))
        for name, each in schema.get("properties", {}).items()
    ]


def kinds_of(schema: Callable[[], Mapping[str, Any]]) -> Kinds:
    """What each parameter takes; the schema is asked for when the first one is looked up, and any name may be."""

    @cache
    def known() -> dict[str, Takes]:
        return {each.name: Takes(each.kind, each.none) for each in describe(schema())}

    return lambda name: known().get(name, Takes(Kind.ANY))


def _described(name: str, schema: Mapping[str, Any], *, required: bool, none: bool) -> Described:
    choices = tuple(schema.get("enum", ())) or ((schema["const"],) if "const" in schema else ())
    return Described(
        name,
        str(schema.get("type", "any")),
        required,
        schema.get("default"),
        schema.get("description", ""),
        choices,
        {word: schema[word] for word in LIMITS if word in schema},
        none,
    )


def _flat(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what it refers to, and of ``X | None`` with what X says."""
    if "$ref" in schema:
        schema = {**definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1], {}), **schema}
    others = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(others) == 1:
        schema = {**_flat(others[0], definitions), **schema}
    return schema


def _takes_none(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether ``null`` is valid: among others, and where there is no type at all."""
    if "$ref" in schema:
        return _takes_none(definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1], {"type": "object"}), definitions)
    others = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if others:
        return any(_takes_none(each, definitions) for each in others)
    if "enum" in schema:
        return None in schema["enum"]
    return "const" not in schema and schema.get("type", "null") == "null"
