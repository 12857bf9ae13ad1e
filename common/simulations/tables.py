"""``simulations.toml``: the programs that the operator of a system lets its users run, each a table with its name.

A client names a table and gives values; what is run is what the table says. Values become single words of the command,
or variables of the environment, and never a part of a shell's line.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import InvalidInput
from common.options import read_options
from common.programs.admission import admit
from common.programs.array import ArrayIndices
from common.programs.files import find_executable, quoted, stamped
from common.programs.program import DEFAULT_STDERR, DEFAULT_STDOUT, Program
from common.programs.script import read_script
from common.simulations.declare import Simulation, model_of, no_function
from common.simulations.table_values import Parameter, field_of, take_no_code

FILE = "simulations.toml"


class Table(BaseModel):
    """What a table of ``simulations.toml`` may say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: list[str] | None = Field(None, min_length=1)
    script: str | None = Field(None, min_length=1)
    description: str = ""
    outputs: list[str] = Field(default_factory=list)
    shell: bool = False
    stdout: str = DEFAULT_STDOUT
    stderr: str = DEFAULT_STDERR
    parameters: dict[str, Parameter] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_program(self) -> Self:
        if (self.command is None) == (self.script is None):
            raise ValueError("needs command or script, one of them")
        if self.shell and (self.command is None or len(self.command) != 1):
            raise ValueError("with shell = true command is a list of one text, the line")
        # Such names are Python's own.
        own = next((name for name in self.parameters if name.startswith("_")), "")
        if own:
            raise ValueError(f"parameter {own!r:.60} must not begin with _; give it another name")
        return self


@dataclass(frozen=True)
class Ready:
    """What follows from a table alone, and from its script."""

    program: Program
    options: dict[str, Any]
    model: type[BaseModel]
    digest: str


@dataclass(frozen=True)
class Named:
    """A table that could be read, or why it could not."""

    origin: str
    name: str
    table: Table | None
    error: str = ""
    #: What the script's stat said → what was made of it; workers ask at every claim.
    ready: dict[tuple[int, int], Ready] = field(default_factory=dict)


# File → (what its stat said, its tables).
_read: dict[Path, tuple[tuple[int, int], list[Named]]] = {}


def from_tables(place: Path) -> Iterator[tuple[str, list[Simulation], str]]:
    """Every table of the file in ``place``: where it stands, what it declares, and why it declares nothing."""
    path = place / FILE
    for named in _tables(path):
        if named.table is None:
            yield named.origin, [], named.error
            continue
        try:
            yield named.origin, [_simulation(path.parent, named, named.table)], ""
        except InvalidInput as error:
            yield named.origin, [], f"{named.origin}: {error.message}"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a table, the others are still to be had
            yield named.origin, [], _unforeseen(named.origin, error)


def _tables(path: Path) -> list[Named]:
    """The tables as they are now; read again only when the file has changed."""
    try:
        seen = path.stat()
        mark = (seen.st_mtime_ns, seen.st_size)
        if path not in _read or _read[path][0] != mark:
            _read[path] = (mark, _parse(path, path.read_text(encoding="utf-8")))
        return _read[path][1]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        return [Named(str(path), "", None, f"{path}: {reason}")]


def _parse(path: Path, text: str) -> list[Named]:
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Beside wrong TOML: numbers of thousands of digits, and lists in lists without end.
        return [Named(str(path), "", None, f"{path}: {error}")]
    return [_named(path, name, values) for name, values in found.items()]


def _named(path: Path, name: str, values: Any) -> Named:
    origin = f"{path} [{name}]"
    if not isinstance(values, dict):
        return Named(str(path), name, None, f"{path}: {name} is not in a table; begin it with a line [name]")
    if not name.isidentifier():
        return Named(origin, name, None, f"{origin}: its name must be letters, digits and _")
    try:
        return Named(origin, name, Table.model_validate(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        *where, last = [str(part) for part in first["loc"]] or [""]
        place = f"{path} [{'.'.join([name, *where])}]"
        reason = first["msg"].removeprefix("Value error, ")
        said = f"{last} is not a field" if first["type"] == "extra_forbidden" else reason[0].lower() + reason[1:]
        return Named(origin, name, None, f"{place}: {said if not last or last in said else f'{last}: {said}'}")
    except Exception as error:  # noqa: BLE001 - as in from_tables
        return Named(origin, name, None, _unforeseen(origin, error))


def _unforeseen(origin: str, error: Exception) -> str:
    return f"{origin}: {type(error).__name__}: {error}"


def _simulation(directory: Path, named: Named, table: Table) -> Simulation:
    """The program as its files are now. Raises :class:`InvalidInput`."""
    mark = _mark(directory / table.script) if table.script is not None else (0, 0)
    if mark not in named.ready:
        named.ready.clear()
        named.ready[mark] = _ready(directory, named.name, table)
    ready = named.ready[mark]
    find_executable(ready.program)
    program = stamped(ready.program)
    return Simulation(
        named.name,
        no_function,
        dict.fromkeys(table.outputs, float),
        hashlib.sha256(f"{ready.digest} {program.version}".encode()).hexdigest()[:16],
        named.origin,
        program=program,
        model=ready.model,
        text=table.description,
        defaults=ready.options,
    )


def _ready(directory: Path, name: str, table: Table) -> Ready:
    program, options = _program(directory, name, table)
    admit(program, table.parameters, table.outputs)
    take_no_code(program, table.parameters)
    fields = {each: field_of(each, given, program) for each, given in table.parameters.items()}
    # Not the directory: API and workers may have it in different places.
    text = json.dumps(table.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Ready(program, options, model_of(name, fields), digest)


def _program(directory: Path, name: str, table: Table) -> tuple[Program, dict[str, Any]]:
    if table.script is None:
        assert table.command is not None
        words, out, err = tuple(table.command), table.stdout, table.stderr
        return Program(words, str(directory), name=name, stdout=out, stderr=err, shell=table.shell), {}
    path = directory / table.script
    script = read_script(path)
    options = dict(script.options)
    if "dependency" in options:
        raise InvalidInput(
            "a script that everybody runs cannot have a --dependency: it is of one batch", field="script"
        )
    indices = ArrayIndices.parse(script.array) if script.array else None
    if indices is not None and indices.throttle:
        options["throttle"] = indices.throttle
    read_options(options)
    return Program(
        (*(quoted(word) for word in script.interpreter), quoted(table.script)),
        str(directory),
        array=indices.text if indices else "",
        name=script.job_name or name,
        stdout=script.stdout or table.stdout,
        stderr=script.stderr or script.stdout or table.stderr,
    ), options


def _mark(path: Path) -> tuple[int, int]:
    try:
        seen = path.stat()
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}", field="script") from None
    return seen.st_mtime_ns, seen.st_size
