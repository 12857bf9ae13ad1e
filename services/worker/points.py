"""A sweep's points as columns: the parameters in ``results.csv``, and ``points.csv`` with each point's estimates."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from common import samples
from common.batch import BatchSpec
from common.estimates import DEFAULT_CONFIDENCE, QUANTILES, SCALARS, describe_points
from common.ledger import Connection
from common.suspicion import Inspection
from common.sweep import Sweep
from common.wording import valid_text

_NOT_FINITE = {str(value): value for value in (math.inf, -math.inf, math.nan)}


@dataclass(frozen=True)
class Swept:
    """A swept parameter as a column: it moves on to its next value after ``stride`` points, and begins anew."""

    values: Any
    stride: int = 1

    @property
    def type(self) -> Any:
        """The column's Arrow type; text for a mixture of types."""
        return self.values.type

    def at(self, points: np.ndarray) -> Any:
        """Its values at these points, as an Arrow array."""
        return self.values.take(pa.array(points // self.stride % len(self.values)))


def swept(spec: BatchSpec) -> dict[str, Swept]:
    """The swept parameters; costs the values of the axes, however many points they make."""
    if not spec.sweep:
        return {}
    sweep = Sweep.from_dict(spec.sweep)
    if sweep.mode == "points":
        names = dict.fromkeys(name for point in sweep.points for name in point)
        return {name: Swept(_typed([point.get(name) for point in sweep.points])) for name in names}
    found, stride = {}, 1
    for name, values in reversed(list(sweep.axes.items())):
        found[name] = Swept(_typed(list(values)), stride)
        stride *= len(values) if sweep.mode == "grid" else 1
    return dict(reversed(found.items()))


def _typed(values: list[Any]) -> Any:
    kinds = {type(value) for value in values}
    if float in kinds or int in kinds:
        # As batch.json has them, which is JSON.
        values = [_NOT_FINITE.get(value, value) if isinstance(value, str) else value for value in values]
        kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        values = _floats(values) if float in kinds else values
    elif not kinds <= {bool}:
        values = ["" if value is None else str(value) for value in values]
    return _column(values)


def _floats(values: list[Any]) -> list[Any]:
    """Whole numbers beside floats as such, unless one is beyond them."""
    try:
        return [float(value) for value in values]
    except OverflowError:
        return [str(value) for value in values]


def _column(values: list[Any]) -> Any:
    """As text where Arrow has no type: for whole numbers of more than 64 bits, and for halves of characters."""
    try:
        return pa.array(values)
    except (OverflowError, ValueError):
        return pa.array([valid_text(str(value)) for value in values])


def has_points(spec: BatchSpec) -> bool:
    """Whether the batch gets a ``points.csv``: it is a sweep, and its jobs give numbers."""
    return bool(spec.sweep and spec.outputs)


def write_points(
    connection: Connection,
    spec: BatchSpec,
    path: Path,
    parameters: dict[str, Swept],
    inspection: Inspection,
    renew: Callable[[], None],
) -> None:
    """Write a row for each point: its parameters, then each output's estimates; and let ``inspection`` look at them.

    In memory for some points at a time. ``renew`` is called before each part. Raises OSError.
    """
    sweep = Sweep.from_dict(spec.sweep)
    schema = _schema(spec, parameters)
    with pa.csv.CSVWriter(path, schema, write_options=pa.csv.WriteOptions(quoting_style="needed")) as file:
        for first, found in samples.by_points(connection, spec, sweep, 0, sweep.size):
            renew()
            count = len(found.completed)
            columns = [values.at(np.arange(first, first + count)) for values in parameters.values()]
            for name in spec.outputs:
                said = describe_points(found, name, DEFAULT_CONFIDENCE)
                columns += [pa.array(said[field]) for field in ("count", "non_finite", *SCALARS)]
                columns += [pa.array(row) for row in said["quantiles"]]
            file.write_table(pa.table(columns, schema=schema))
            inspection.add_points(found)


def _schema(spec: BatchSpec, parameters: dict[str, Swept]) -> Any:
    fields = [(name, values.type) for name, values in parameters.items()]
    for name in spec.outputs:
        fields += [(f"{name}_{field}", pa.int64()) for field in ("count", "non_finite")]
        fields += [(f"{name}_{field}", pa.float64()) for field in SCALARS]
        fields += [(f"{name}_q{which:g}", pa.float64()) for which in QUANTILES]
    return pa.schema(fields)
