"""The parameters that a table of ``simulations.toml`` declares: types, limits, choices, and what a text may not do."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic import model_validator as validated

from common.errors import InvalidInput
from common.programs.program import Program
from common.simulations.programs import fits_a_word

TYPES: dict[str, type] = {"float": float, "int": int, "str": str, "bool": bool}
# Programs that run a text they are given, each with the letters of the options that give it, alone or among others.
INTERPRETERS = {
    **dict.fromkeys(("sh", "bash", "dash", "ash", "zsh", "ksh", "csh", "tcsh", "fish", "su", "python", "pypy"), "c"),
    **dict.fromkeys(("ruby", "lua", "R", "Rscript"), "e"),
    **dict.fromkeys(("perl", "julia"), "eE"),
    "node": "ep",
    "php": "rBRE",
    "env": "S",
}
CODE = re.compile(r"--(eval|command|execute|print|run|split-string)\b")
# What none of them should have right before a client's text, whatever it means to each.
BEFORE_TEXT = ("-c", "-e", "-E", "-S")


class Parameter(BaseModel):
    """What ``[<name>.parameters.<parameter>]`` may say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["float", "int", "str", "bool"]
    default: float | int | str | bool | None = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    choices: list[float | int | str | bool] | None = Field(None, min_length=1)
    description: str = ""

    @validated(mode="after")
    def _fits_together(self) -> Self:
        if self.type not in ("float", "int") and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"minimum and maximum are for numbers, and this is a {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        for limit in (self.minimum, self.maximum):
            whole = limit is None or isinstance(limit, int) or limit.is_integer()
            if limit is not None and not (whole or (self.type == "float" and math.isfinite(limit))):
                raise ValueError(f"limit {limit} is no {self.type}; leave it out where there is none")
        plain = TypeAdapter(_plain(self))
        for value in [*([self.default] if self.default is not None else []), *(self.choices or [])]:
            try:
                plain.validate_python(value)
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"]
                raise ValueError(f"{value!r} is no value of it: {reason[0].lower()}{reason[1:]}") from None
        if self.default is not None and self.choices is not None and self.default not in self.choices:
            raise ValueError(f"default {self.default!r} is none of its choices")
        return self


def field_of(name: str, given: Parameter, program: Program) -> tuple[Any, Any]:
    """The parameter as a field of a pydantic model."""
    kind = _plain(given)
    if given.type == "str" and _begins_a_word(name, program):
        kind = Annotated[kind, AfterValidator(_no_option)]
    if given.choices is not None:
        choices = [TypeAdapter(_plain(given)).validate_python(value) for value in given.choices]
        kind = Annotated[kind, AfterValidator(_one_of(choices))]
        kind = Annotated[kind, Field(json_schema_extra={"enum": choices})]
    default = ... if given.default is None else TypeAdapter(_plain(given)).validate_python(given.default)
    return Annotated[kind, Field(description=given.description or None)], default


def take_no_code(program: Program, parameters: Mapping[str, Parameter]) -> None:
    """See that no text of a client's is run as a command by an interpreter, wherever in the command that stands.

    What comes after the text to run is refused, too: it may be more of it. Raises :class:`InvalidInput`.
    """
    if program.shell:
        return
    free = [name for name, given in parameters.items() if given.type == "str" and given.choices is None]
    found: list[str] = []
    before = code = ""
    for word in program.command:
        if found and not code and _gives_code(word, found):
            code = word
        here = code or (before if found and before in BEFORE_TEXT else "")
        named = next((name for name in free if f"{{{name}}}" in word), "")
        if here and named:
            raise InvalidInput(
                f"command: {here:.60} and {word!r:.60} would run what a client writes in {named}; give it choices, or "
                "read it from the environment",
                field="command",
            )
        found += _interpreter(word)
        before = word


def _interpreter(word: str) -> list[str]:
    """The interpreter that a word names: with its path, or with a version as in python3.11."""
    known = re.fullmatch(r"([A-Za-z]+)[0-9.]*", PurePath(word).name)
    return [known[1]] if known and known[1] in INTERPRETERS else []


def _gives_code(word: str, interpreters: list[str]) -> bool:
    letters = "".join(INTERPRETERS[name] for name in interpreters)
    return bool(CODE.match(word) or re.match(f"-[A-Za-z0-9]*[{letters}]", word))


def _plain(given: Parameter) -> Any:
    """Type and limits."""
    kind: Any = TYPES[given.type]
    if given.type == "str":
        return Annotated[kind, BeforeValidator(_as_text), AfterValidator(fits_a_word)]
    if given.type == "bool":
        return kind
    return Annotated[kind, Field(ge=given.minimum, le=given.maximum, allow_inf_nan=False)]


def _as_text(value: Any) -> Any:
    """A command line reads ``label=5`` as a number."""
    return json.dumps(value) if isinstance(value, bool | int | float) else value


def _begins_a_word(name: str, program: Program) -> bool:
    # What stands before it may be empty, unless it is a character of the table's own.
    first = re.compile(rf"(\{{\w+\}})*\{{{name}\}}")
    return not program.shell and any(first.match(word) for word in program.command)


def _no_option(text: str) -> str:
    if text.startswith("-"):
        raise ValueError("must not begin with -, which the program could take for an option")
    return text


def _one_of(choices: list[Any]) -> Any:
    def check(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(map(str, choices))}")
        return value

    return check
