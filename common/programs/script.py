"""Scripts as ``sbatch`` takes them: ``#SBATCH`` lines at the top, read as Slurm reads them.

Slurm reads the lines before the first command, several options on one, ``--x=y``, ``--x y``, ``-xy`` or ``-x y``,
up to an unquoted ``#``. What we cannot do, or only nearly, is named in a warning with its line, so that scripts run
here as they are; an error is what Slurm would not take either, and a dependency that cannot be kept.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from common.errors import InvalidInput
from common.programs.adapting import Nearly, at_most, dependency, indices, log_pattern

MAGIC = "#SBATCH"
MOST_BYTES = 4 * 2**20
# Slurm's letter → its option, of those that are read.
LETTERS = {"a": "array", "t": "time", "J": "job-name", "d": "dependency", "o": "output", "e": "error", "n": "ntasks",
           "N": "nodes", "c": "cpus-per-task", "A": "account"}  # fmt: skip
# What is so here anyhow, or says nothing about the jobs: passed over in silence. With a value, only that one is.
SILENT = {"requeue": None, "comment": None, "account": None, "export": "ALL", "ntasks": "1", "nodes": "1",
          "cpus-per-task": "1", "ntasks-per-node": "1"}  # fmt: skip
WITHOUT_VALUE = frozenset(
    {"requeue", "no-requeue", "hold", "exclusive", "contiguous", "overcommit", "parsable", "wait"}
)
_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?"
                   r"|(?:(?P<h>\d+):(?=\d+:))?(?P<m>\d+)(?::(?P<s>\d+))?)", re.ASCII)  # fmt: skip
_MEMORY = re.compile(r"([0-9]{1,12})([KMGT]?)B?", re.IGNORECASE)
_KB = {"K": 1, "": 2**10, "M": 2**10, "G": 2**20, "T": 2**30}
UNLIMITED = ("UNLIMITED", "INFINITE")


@dataclass(frozen=True)
class Script:
    """What a script asks for; what it does not say is empty."""

    #: The program of its first line, with that line's argument.
    interpreter: tuple[str, ...]
    array: str = ""
    job_name: str = ""
    stdout: str = ""
    stderr: str = ""
    #: Fields of :class:`common.options.Options`.
    options: tuple[tuple[str, Any], ...] = ()
    #: What is not done, with the line that asks for it.
    warnings: tuple[str, ...] = ()


def read_script(path: Path) -> Script:
    """Read a script's first line and its ``#SBATCH`` lines. Raises :class:`InvalidInput` with the field ``script``."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}", field="script") from None
    interpreter = _interpreter(path, text)
    values: dict[str, Any] = {}
    options: dict[str, Any] = {}
    warnings = []
    for line, name, value in _directives(text):
        try:
            remark = _take(name, value, values, options)
        except ValueError as error:
            raise InvalidInput(f"{path}, line {line}: --{name}: {error}", field="script") from None
        if remark:
            warnings.append(f"{path}, line {line}: {_shown(name, value)} {remark}")
    warnings += [f"{path}, line {line}: {MAGIC} after the first command is not read" for line in _late(text)]
    return Script(interpreter, options=tuple(options.items()), warnings=tuple(warnings), **values)


def parse_time(text: str) -> float:
    """Slurm's time limit as seconds: minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s; 0 is no limit. Raises ValueError."""
    if text.upper() in UNLIMITED:
        return 0.0
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no time; write minutes, 90:00, 1:30:00 or 2-12:00:00")
    found = {name: int(value or 0) for name, value in match.groupdict().items()}
    if match["days"] is not None:
        return float(((found["days"] * 24 + found["hours"]) * 60 + found["minutes"]) * 60 + found["seconds"])
    return float((found["h"] * 60 + found["m"]) * 60 + found["s"])


def parse_memory(text: str) -> int:
    """Slurm's ``--mem`` as MB: ``500``, ``500M``, ``4G``, ``200000K``; 0 is no limit. Raises ValueError."""
    match = _MEMORY.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no size; write 500 (MB), 500M or 4G")
    return ceil(Fraction(int(match[1]) * _KB[match[2].upper()], 2**10))


def _interpreter(path: Path, text: str) -> tuple[str, ...]:
    """The words of ``#!``: the program and, as the kernel does it, at most one argument."""
    first, _, _ = text.partition("\n")
    words = tuple(first.removeprefix("#!").strip().split(None, 1))
    if first.endswith("\r"):
        raise InvalidInput(f"{path}: its lines end as in Windows; convert it: dos2unix {path}", field="script")
    if not first.startswith("#!") or not words or "\0" in first:
        raise InvalidInput(
            f"{path}: its first line must be #! and an interpreter, such as #!/bin/sh; start a program with -- {path}",
            field="script",
        )
    return words


def _head(text: str) -> int:
    """How many lines there are before the first command."""
    lines = text.split("\n")
    return next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), len(lines))


def _late(text: str) -> Iterator[int]:
    head = _head(text)
    for number, line in enumerate(text.split("\n")[head:], head + 1):
        if _is_directive(line):
            yield number


def _is_directive(line: str) -> bool:
    return line.startswith(MAGIC) and line[len(MAGIC) : len(MAGIC) + 1].isspace()


def _directives(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Every option: (line, name, value); a word that is none has the name "" and itself as the value."""
    for number, line in enumerate(text.split("\n")[: _head(text)], 1):
        if not _is_directive(line):
            continue
        try:
            words = shlex.split(line[len(MAGIC) :], comments=True)
        except ValueError:
            yield number, "", line[len(MAGIC) :].strip()
            continue
        yield from ((number, name, value) for name, value in _options(words))


def _options(words: list[str]) -> Iterator[tuple[str, str | None]]:
    rest = words[::-1]
    while rest:
        word = rest.pop()
        if word.startswith("--") and len(word) > 2:
            name, separator, value = word[2:].partition("=")
            given = value if separator else None
        elif word.startswith("-") and len(word) > 1:
            name, given = LETTERS.get(word[1], word[1]), word[2:] or None
        else:
            yield "", word
            continue
        if given is None and name not in WITHOUT_VALUE and rest and not rest[-1].startswith("-"):
            given = rest.pop()
        yield name, given


def _take(name: str, value: str | None, values: dict[str, Any], options: dict[str, Any]) -> str:
    """Note what an option asks for; what is to be said of it, if anything. The last of two counts, as in Slurm."""
    if name in SILENT and SILENT[name] in (None, value):
        return ""
    if name not in TAKEN or value is None:
        return "is not supported and was passed over"
    place, read = TAKEN[name]
    found = read(value)
    if not isinstance(found, Nearly):
        found = Nearly(found, "")
    if found.value is not None:
        (options if place in OPTIONS else values)[place] = found.value
    return found.remark


def _shown(name: str, value: str | None) -> str:
    if not name:
        return repr(value)
    option, between = (f"--{name}", "=") if len(name) > 1 else (f"-{name}", " ")
    return option if value is None else f"{option}{between}{value}"


def _text(value: str) -> str:
    return value


OPTIONS = ("time_limit_seconds", "memory_limit_mb", "dependency")
# Slurm's option → where it goes, and how it is read.
TAKEN: dict[str, tuple[str, Callable[[str], Any]]] = {
    "array": ("array", indices),
    "job-name": ("job_name", _text),
    "output": ("stdout", log_pattern),
    "error": ("stderr", log_pattern),
    "time": ("time_limit_seconds", lambda text: at_most("time_limit_seconds", parse_time(text))),
    "mem": ("memory_limit_mb", lambda text: at_most("memory_limit_mb", parse_memory(text))),
    "dependency": ("dependency", dependency),
}
