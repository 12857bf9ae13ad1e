"""Parameters and sweeps on the command line: ``--param sigma=0.1,0.2 --param k=80:120:5 --replications 1000``."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from common.errors import InvalidInput
from common.simulations.described import Kinds
from common.spelling import Kind, Takes, parse_column, parse_values, read_json

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("param", "replications", "zip_axes", "from_csv", "from_json", "common_random_numbers")


def sweep_options(function: F) -> F:
    """Give a verb the options that :func:`read` takes."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--common-random-numbers", is_flag=True, help="each point's replication r has the same stream"),
        click.option("--from-json", type=path, help="points from a JSON list of objects, or all of a batch.json"),
        click.option("--from-csv", type=path, help="points from a CSV with a header, one a row"),
        click.option("--zip", "zip_axes", is_flag=True, help="the lists' first values, then their second, …"),
        click.option("--replications", type=int, help="jobs of each point"),
        click.option(
            "--param",
            multiple=True,
            metavar="NAME=VALUES",
            help="a parameter: sigma=0.2; or a sweep: sigma=0.1,0.2 or k=80:120:5; or one value as JSON: "
            "v=[1,2], name='\"a,b\"'; null where it can be None; repeatable",
        ),
    ):
        function = option(function)
    return function


def untyped(_name: str) -> Takes:
    """What a parameter takes of which nothing is known."""
    return Takes(Kind.ANY)


def read(
    kinds: Kinds,
    *,
    param: tuple[str, ...],
    replications: int | None,
    zip_axes: bool,
    from_csv: Path | None,
    from_json: Path | None,
    common_random_numbers: bool,
) -> dict[str, Any]:
    """The fields ``parameters`` and ``sweep`` of a batch. Raises :class:`InvalidInput` that names the option.

    ``kinds`` says what each parameter takes, and so what a text is read as.
    """
    fixed, axes = {}, {}
    for text in param:
        name, values = _parameter(text, kinds)
        if name in fixed or name in axes:
            raise InvalidInput(f"--param {name} is given twice", field=name)
        if len(values) == 1:
            fixed[name] = values[0]
        else:
            axes[name] = values
    points = _points(from_csv, from_json, kinds)
    if points is not None and axes:
        raise InvalidInput("--from-csv and --from-json name the points; give each --param one value", field="param")
    if isinstance(points, Taken):
        return points.fields(fixed, replications, common_random_numbers)
    if points is None and not axes and replications is None:
        if zip_axes or common_random_numbers:
            raise InvalidInput("there is no sweep: give a --param several values", field="param")
        return {"parameters": fixed} if fixed else {}
    sweep: dict[str, Any] = {"replications": 1 if replications is None else replications}
    if points is not None:
        sweep |= {"mode": "points", "points": points}
    elif axes:
        sweep |= {"mode": "zip" if zip_axes else "grid", "axes": axes}
    else:
        sweep |= {"mode": "points", "points": [{}]}
    return {"parameters": fixed, "sweep": sweep | {"common_random_numbers": common_random_numbers}}


def _parameter(text: str, kinds: Kinds) -> tuple[str, list[Any]]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise InvalidInput(f"--param {text}: is not NAME=VALUES", field="param")
    try:
        takes = kinds(name)
        return name, parse_values(value, takes.kind, none=takes.none)
    except ValueError as error:
        raise InvalidInput(f"--param {name}: {error}", field=name) from None


def _points(from_csv: Path | None, from_json: Path | None, kinds: Kinds) -> "list[dict[str, Any]] | Taken | None":
    if from_csv is None and from_json is None:
        return None
    if from_csv is not None and from_json is not None:
        raise InvalidInput("give --from-csv or --from-json, not both", field="from_csv")
    path = from_csv or from_json
    assert path is not None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidInput(f"{path}: {reason}", field="from_csv" if from_csv else "from_json") from None
    if from_json is not None:
        return _from_json(path, text)
    return _from_csv(path, text, kinds)


def _from_csv(path: Path, text: str, kinds: Kinds) -> list[dict[str, Any]]:
    """Each row as a point, each cell as one value: a file has no room for what a cell might mean besides."""
    header, rows = _table(path, text)
    columns = []
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        try:
            takes = kinds(name)
            columns.append(parse_column(cells, takes.kind, none=takes.none))
        except ValueError as error:
            raise InvalidInput(f"{path}: {name}: {error}", field=name) from None
    return [dict(zip(header, values, strict=True)) for values in zip(*columns, strict=True)]


def _table(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    """The names in the first line, and the cells of the others; blank lines are none."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise InvalidInput(f"{path}, line {reader.line_num}: {error}", field="from_csv") from None
    if len(rows) < 2:
        raise InvalidInput(f"{path}: needs a line of parameters' names, and one for each point", field="from_csv")
    (_, header), *points = rows
    if "" in header:
        raise InvalidInput(f"{path}: column {header.index('') + 1} has no name in the first line", field="from_csv")
    twice = next((name for name in header if header.count(name) > 1), "")
    if twice:
        raise InvalidInput(f"{path}: two columns are called {twice}; give each parameter once", field="from_csv")
    for line, row in points:
        if len(row) != len(header):
            raise InvalidInput(
                f"{path}, line {line}: has {len(row)} values, and there are {len(header)} names", field="from_csv"
            )
    return header, [row for _, row in points]


@dataclass(frozen=True)
class Taken:
    """Parameters and sweep of a batch that was, from its ``batch.json``."""

    parameters: dict[str, Any]
    sweep: dict[str, Any]

    def fields(self, fixed: dict[str, Any], replications: int | None, common: bool) -> dict[str, Any]:
        """As :func:`read` gives them; what else was given comes before what the batch had."""
        sweep = dict(self.sweep)
        if not sweep and replications is not None:
            sweep = {"mode": "points", "points": [{}]}
        if sweep:
            sweep |= {"replications": replications} if replications is not None else {}
            sweep |= {"common_random_numbers": True} if common else {}
        return {"parameters": {**self.parameters, **fixed}, **({"sweep": sweep} if sweep else {})}


def _from_json(path: Path, text: str) -> list[dict[str, Any]] | Taken:
    try:
        found = read_json(text)
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}", field="from_json") from None
    if isinstance(found, dict) and all(isinstance(found.get(name), dict) for name in ("parameters", "sweep")):
        return Taken(found["parameters"], found["sweep"])
    if not isinstance(found, list) or not found or not all(isinstance(point, dict) for point in found):
        raise InvalidInput(f"{path}: must be a list of at least one object, or a batch.json", field="from_json")
    return found
