"""What ``{name}`` in a program's command stands for.

A value becomes text inside one word of the command; no shell ever sees it, so nothing needs quotes. Text is inserted
as it is and everything else as JSON writes it: ``true`` and ``false``, 0.1 with the digits that give 0.1 back, ``NaN``
and ``Infinity``, which C, Fortran and Python read. ``{{`` and ``}}`` are braces.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from common.errors import InvalidInput
from common.programs.program import Program

#: What every job has of its own. ``seed`` has 63 bits; ``seed31`` is for programs that take no more than an int.
OWN = ("seed", "seed31", "index", "task", "attempt", "batch", "dir")
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check(program: Program, parameter_names: Collection[str]) -> None:
    """See that the command can be filled in for a batch with these parameters.

    Raises :class:`InvalidInput` that names what stands there and what there is.
    """
    if not program.command or not program.command[0]:
        raise InvalidInput("command is empty: give the program and its arguments", field="command")
    if any("\0" in word for word in program.command):
        raise InvalidInput("command has a zero byte in it, which no program can be given", field="command")
    _check_names(parameter_names)
    if program.shell:
        return
    known = {*OWN, *parameter_names}
    for word in program.command:
        for _, name in _parts(word):
            if name is not None and name not in known:
                raise InvalidInput(
                    f"command: {{{name}}} in {word!r:.80} is nothing that a job has; there are "
                    f"{', '.join([*OWN, *sorted(parameter_names)])}. A brace itself is written twice.",
                    field="command",
                )


def _check_names(names: Collection[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name in OWN:
            raise InvalidInput(f"{name} is what every job has of its own; give the parameter another name", field=name)
        other = seen.setdefault(variable(name), name)
        if other != name:
            raise InvalidInput(f"{other} and {name} would both be {variable(name)} in the environment", field=name)


def variable(name: str) -> str:
    """The environment variable of a parameter: upper case, and what a shell cannot read as an underscore."""
    return "PARAM_" + re.sub(r"[^A-Za-z0-9_]", "_", name).upper()


def text(value: Any) -> str:
    """A parameter's value as a program gets it."""
    return value if isinstance(value, str) else json.dumps(value)


class Command:
    """A command whose placeholders are found once, and filled in for each job."""

    def __init__(self, words: Sequence[str], *, verbatim: bool = False) -> None:
        cut = [[(word, None)] if verbatim else _parts(word) for word in words]
        # A word of one literal piece is the same for every job.
        self._words = [
            parts if any(name is not None for _, name in parts) else os.fsencode("".join(piece for piece, _ in parts))
            for parts in cut
        ]

    def fill(self, values: Mapping[str, str]) -> list[bytes]:
        """The words of one job. Raises KeyError for a name that ``values`` lacks."""
        return [
            word
            if isinstance(word, bytes)
            else os.fsencode("".join([piece if name is None else values[name] for piece, name in word]))
            for word in self._words
        ]


def _parts(word: str) -> list[tuple[str, str | None]]:
    """Literal pieces as (text, None), placeholders as ("", name). Raises :class:`InvalidInput` for a lone brace."""
    found: list[tuple[str, str | None]] = []
    end = 0
    for match in _PART.finditer(word):
        found.append((word[end : match.start()], None))
        end = match.end()
        sign = match.group()
        if sign in ("{", "}"):
            raise InvalidInput(
                f"command: {word!r:.80} has a single {sign}; a brace itself is written twice", field="command"
            )
        found.append((sign[0], None) if sign in ("{{", "}}") else ("", match[1]))
    return [*found, (word[end:], None)]
