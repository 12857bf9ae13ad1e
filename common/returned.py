"""A job's result, made of what its function returned: CSV bytes and numeric outputs.

A dict is a row; a list of dicts, a 2-D array and a DataFrame are several, of which the last has the declared outputs.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from common.cells import PLAIN, PLAIN_ALONE, Unwritable, written
from common.rows import RowFormat

Result = tuple[bytes, tuple[float, ...]]

_NUMPY: tuple[type, ...] = (np.integer, np.bool_)
# Of these types every value is what is wanted, and its text reads back as the same number.
_CERTAIN: dict[type, frozenset[type]] = {
    float: frozenset(kind for kind in PLAIN_ALONE if issubclass(kind, (float, int, *_NUMPY))),
    int: frozenset(kind for kind in PLAIN_ALONE if issubclass(kind, (int, *_NUMPY))),
    bool: frozenset((bool, np.bool_)),
}
_NAMES = {float: "no number", int: "no whole number", bool: "neither true nor false"}
# From here on doubles, as which outputs are recorded, leave whole numbers out.
_FIRST_GAP = 2.0**53
# Results mostly look alike; of those that never do nothing is kept.
_MOST_SHAPES = 64


class WrongResult(TypeError):
    """A simulation returned something else than it declared; the job is FAILED with this text."""


class _Shape(NamedTuple):
    """What is known of a row by its columns and types: how to write it, and what of it must be looked at."""

    format: RowFormat
    #: The cells that are lists.
    lists: tuple[Any, ...]
    #: Other cells of which ``str`` may leave something out, and outputs that may not be what was declared.
    others: tuple[Any, ...]


class Returned:
    """Reads what one simulation's function returns; ``outputs`` are the declared numbers with their types.

    A float may be any real number, NaN and infinity included; an int must be whole, as 3.0 is, and a number that a
    double holds, as all are up to 2**53; a bool true, false, 1 or 0. A text is never a number. Methods raise
    :class:`WrongResult`, which names the output or the cell.
    """

    def __init__(self, simulation: str, outputs: Mapping[str, type]) -> None:
        self._simulation = simulation
        self._kinds = dict(outputs)
        self._names = tuple(outputs)
        self._whole = tuple((place, name) for place, (name, kind) in enumerate(outputs.items()) if kind is int)
        self._shapes: dict[tuple[Any, ...], _Shape] = {}

    def read(self, result: Any) -> Result:
        """The CSV's bytes and the outputs."""
        if type(result) is not dict:
            return self._table(self._rows(result))
        shape = self._shapes.get((*result, *map(type, result.values()))) or self._shape(result)
        for name in shape.lists:
            if not PLAIN.issuperset(map(type, result[name])):
                result = result | {name: self._written(name, result[name])}
        if shape.others:
            result = self._looked_at(result, shape)
        try:
            data, outputs = shape.format(result.values()), tuple([float(result[name]) for name in self._names])
        except OverflowError:
            name = next(name for name in self._names if _real(result[name]) is None)
            raise self._wrong_output(name, result[name], None) from None
        for place, name in self._whole:
            if not -_FIRST_GAP < outputs[place] < _FIRST_GAP and not _reads_whole(result[name], outputs[place]):
                raise self._beyond(name, result[name])
        return data, outputs

    def _shape(self, row: dict[Any, Any]) -> _Shape:
        missing = next((name for name in self._names if name not in row), None)
        if missing is not None:
            raise WrongResult(f"{self._simulation} returned no {missing!r}; it declares {', '.join(self._names)}")
        lists = tuple(name for name, cell in row.items() if type(cell) is list and name not in self._kinds)
        cells = {name for name, cell in row.items() if type(cell) not in PLAIN_ALONE}
        outputs = {name for name, kind in self._kinds.items() if type(row[name]) not in _CERTAIN[kind]}
        others = tuple(name for name in row if name in cells | outputs and name not in lists)
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        found = _Shape(RowFormat(list(row)), lists, others)
        self._shapes[(*row, *map(type, row.values()))] = found
        return found

    def _looked_at(self, row: dict[Any, Any], shape: _Shape) -> dict[Any, Any]:
        changed = {
            name: (self._output if name in self._kinds else self._written)(name, row[name]) for name in shape.others
        }
        return row | changed

    def _output(self, name: str, value: Any) -> Any:
        kind, plain = self._kinds[name], self._written(name, value)
        number = _real(value if isinstance(value, np.floating) else plain)
        if number is None or (kind is int and not number.is_integer()) or (kind is bool and number not in (0, 1)):
            raise self._wrong_output(name, value, number)
        return plain if _reads_as(plain, number) else number

    def _written(self, name: Any, cell: Any) -> Any:
        try:
            return written(cell)
        except Unwritable as error:
            raise WrongResult(f"{self._simulation} returned {name}, which {error}") from None

    def _rows(self, result: Any) -> list[dict[Any, Any]]:
        if isinstance(result, Mapping):
            return [dict(result)]
        if hasattr(result, "to_dicts"):
            return list(result.to_dicts())
        # A column alone has to_dict, too.
        if hasattr(result, "to_dict") and not hasattr(result, "to_frame"):
            return list(result.to_dict("records"))
        if isinstance(result, np.ndarray) and result.ndim == 2:
            names = [f"c{number}" for number in range(result.shape[1])]
            # Python has no such times as NumPy's: as a list they could be bare numbers.
            rows = result if result.dtype.kind in "mM" else result.tolist()
            return [dict(zip(names, row, strict=True)) for row in rows]
        if isinstance(result, list) and result and all(isinstance(row, dict) for row in result):
            return result
        wanted = ", ".join(self._names) or "nothing numeric"
        raise WrongResult(f"{self._simulation} returned {type(result).__name__}; a dict with {wanted} is needed")

    def _table(self, rows: list[dict[Any, Any]]) -> Result:
        columns = list(rows[0]) if rows else []
        if not rows or any(list(row) != columns for row in rows):
            raise WrongResult(f"{self._simulation} returned rows with different columns")
        *before, last = rows
        end, outputs = self.read(dict(last))
        whole = RowFormat(columns)
        start = len(whole.header)
        lines = [
            whole(cell if type(cell) in PLAIN_ALONE else self._written(name, cell) for name, cell in row.items())[
                start:
            ]
            for row in before
        ]
        return b"".join([whole.header, *lines, end[start:]]), outputs

    def _wrong_output(self, name: str, value: Any, number: float | None) -> WrongResult:
        kind = self._kinds[name]
        advice = "; as a float it may be" if kind is int and number is not None and not math.isfinite(number) else ""
        return WrongResult(
            f"{self._simulation} returned {name} = {value!r:.80}, which is {_NAMES[kind]}; "
            f"it is declared as {kind.__name__}{advice}"
        )

    def _beyond(self, name: str, value: Any) -> WrongResult:
        return WrongResult(
            f"{self._simulation} returned {name} = {value!r:.80}, which is recorded as a double, and that "
            "cannot hold it; declared as float it may be rounded"
        )


def _real(value: Any) -> float | None:
    """The number that it is; None for what is none, texts of digits among it."""
    if isinstance(value, str | bytes | bytearray):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _reads_as(cell: Any, number: float) -> bool:
    """Whether a cell's text gives the number back: that of a fraction, or of a member of an enumeration, does not."""
    try:
        found = {"True": 1.0, "False": 0.0}.get(str(cell))
        return math.isnan(number) or (float(str(cell)) if found is None else found) == number
    except ValueError:
        return False


def _reads_whole(cell: Any, number: float) -> bool:
    """Whether a cell's text is that of this very whole number."""
    return isinstance(cell, float) or Decimal(str(cell)) == Decimal(number)
