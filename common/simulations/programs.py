"""Programs as simulations: any parameter may be given, and what the program makes of it is its own affair."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from common.programs.program import Program
from common.simulations.declare import Simulation, no_function

# Linux gives a program no longer word than 128 KiB.
MOST_CHARACTERS = 10_000


def fits_a_word(text: str) -> str:
    """A text as it can stand in a program's command and environment. Raises ValueError."""
    if "\0" in text or not _is_text(text):
        raise ValueError("must be text without a zero byte")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"must be up to {MOST_CHARACTERS:_} characters; give a program longer data in a file")
    return text


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return fits_a_word(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if not isinstance(value, int | float):
        raise ValueError("a program takes numbers, texts, true and false")
    return value


class AnyParameters(BaseModel):
    """Parameters of any name; numbers, texts and truth values."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_value)]]


def of_program(name: str, program: Program, outputs: Sequence[str]) -> Simulation:
    """A program that somebody named on the command line; ``outputs`` are the numbers that its jobs give."""
    columns = dict.fromkeys(outputs, float)
    return Simulation(name, no_function, columns, "", program=program, model=AnyParameters)
