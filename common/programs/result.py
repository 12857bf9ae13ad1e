"""A job's result, read from what its program printed or wrote: CSV bytes and numeric outputs.

First what it wrote to ``$JOB_RESULT``, a CSV, byte for byte. Else the last line that it printed, if that is a JSON
object, or a list of objects for several rows, or, with exactly one declared output, a number. NaN and infinity may be
written as C's printf writes them. The declared outputs are those of the last row, and numbers to whoever reads the CSV:
no texts, no ``1_000``. Without declared outputs a program need not say anything.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.programs.failure import NoResult
from common.programs.streams import HEAD_BYTES, TAIL_BYTES
from common.rows import RowFormat
from common.spelling import GivenTwice, once

Result = tuple[bytes, tuple[float, ...]]

# What a program that says nothing has as its CSV.
NOTHING_SAID = b"exit_code\r\n0\r\n"
_SHOWN_CHARACTERS = 200
# No JSON begins otherwise: a line of prose need not be parsed to see that it is none.
_JSON_BEGINS = b"{[-0123456789NI+ni"
# A text, which stays as it is, or what C, Fortran and others print of numbers that are not finite: -nan, INF, nan(0x1).
_NOT_FINITE = re.compile(r'"(?:[^"\\]|\\.)*+"?|([+-]?)(?:(nan)(?:\(\w*\))?|inf(?:inity)?)', re.IGNORECASE)


class _Cell(str):
    """A cell of a CSV, in which numbers are texts."""

    __slots__ = ()


class Results:
    """Reads the results of one batch, whose jobs have these numeric outputs. Raises :class:`NoResult`."""

    def __init__(self, outputs: Sequence[str]) -> None:
        self._outputs = tuple(outputs)
        self._columns: list[str] = []
        self._format = RowFormat(())

    def of_line(self, line: bytes, *, cut: bool = False) -> Result | None:
        """Of the last line that was printed; None when that is no result, and none is asked for.

        Of a line that is ``cut`` the beginning is gone.
        """
        if cut and self._outputs:
            raise NoResult(
                f"The program gave no result: its last line is longer than the {TAIL_BYTES >> 10} KiB that can be read "
                f"of one after {HEAD_BYTES >> 20} MiB; write what is so long to $JOB_RESULT, as CSV"
            )
        found = None if cut else _json(line)
        if _is_number(found) and len(self._outputs) == 1:
            found = {self._outputs[0]: found}
        if type(found) is dict and found:
            return self._rows([found], line)
        if type(found) is list and found and all(type(row) is dict and row for row in found):
            return self._rows(found, line)
        if self._outputs:
            raise NoResult(f"The program gave no result: {self._wanted()}. {_shown(line)}")
        return None

    def of_file(self, data: bytes) -> Result:
        """Of the CSV that the program wrote; its last line is ended if the program has not done so."""
        try:
            # Excel begins with a byte order mark; it is no part of a name.
            text = data.decode("utf-8-sig")
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise NoResult(f"What the program wrote to $JOB_RESULT is no CSV: {error}") from None
        if len(rows) < 2:
            raise NoResult("What the program wrote to $JOB_RESULT has no row; it needs a header and a row below")
        columns, last = rows[0], rows[-1]
        if len(set(columns)) < len(columns):
            raise NoResult(f"What the program wrote to $JOB_RESULT has a column twice: {', '.join(columns)}")
        odd = next((number for number, row in enumerate(rows, 1) if len(row) != len(columns)), None)
        if odd is not None:
            raise NoResult(
                f"What the program wrote to $JOB_RESULT has {len(columns)} columns, "
                f"but {len(rows[odd - 1])} in row {odd}"
            )
        row = dict(zip(columns, map(_Cell, last), strict=True))
        said = f"Its CSV has the columns {', '.join(map(repr, columns))[:_SHOWN_CHARACTERS]}; the last row is "
        outputs = self._numbers(row, said + f"{','.join(last)[:_SHOWN_CHARACTERS]!r}.")
        return (data if data.endswith(b"\n") else data + b"\n"), outputs

    def _rows(self, rows: Sequence[dict[str, Any]], line: bytes) -> Result:
        columns = list(rows[0])
        if len(rows) > 1 and any(list(row) != columns for row in rows):
            raise NoResult(f"The program printed rows with different columns. {_shown(line)}")
        outputs = self._numbers(rows[-1], line)
        if columns != self._columns:
            self._columns, self._format = columns, RowFormat(columns)
        first, *others = [self._format([_cell(value) for value in row.values()]) for row in rows]
        start = len(self._format.header)
        return first + b"".join(row[start:] for row in others), outputs

    def _numbers(self, row: Mapping[str, Any], said: bytes | str) -> tuple[float, ...]:
        try:
            return tuple([_as_float(row[name]) for name in self._outputs])
        except (KeyError, TypeError, ValueError, OverflowError):
            shown = _shown(said) if isinstance(said, bytes) else said
            raise NoResult(f"The program gave a wrong result: {self._wanted()}. {shown}") from None

    def _wanted(self) -> str:
        names = ", ".join(self._outputs)
        example = json.dumps(dict.fromkeys(self._outputs, 0.5))
        return f"{names} must be numbers in the last line that it prints, such as {example}, or in $JOB_RESULT"


def last_line(printed: bytes) -> bytes:
    """The last line that is not empty; b"" when there is none."""
    return printed.rstrip().rpartition(b"\n")[2].strip()


def _json(line: bytes) -> Any:
    if not line or line[0] not in _JSON_BEGINS:
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    try:
        try:
            return json.loads(text, object_pairs_hook=once)
        except GivenTwice:
            raise
        except ValueError:
            return json.loads(_NOT_FINITE.sub(_as_json, text), object_pairs_hook=once)
    except GivenTwice as error:
        raise NoResult(f"The program printed a result that has {error.name!r:.80} twice") from None
    except (ValueError, RecursionError):
        return None


def _as_json(found: re.Match[str]) -> str:
    """As JSON's readers take it."""
    sign, is_nan = found.groups()
    if sign is None:
        return found[0]
    return "NaN" if is_nan else f"{sign.removeprefix('+')}Infinity"


def _as_float(value: Any) -> float:
    """A cell of a CSV, or a value of JSON. Raises ValueError, TypeError or OverflowError."""
    if type(value) is _Cell:
        if "_" in value or not value.isascii():
            raise ValueError(f"{value} is a number to Python alone")
    elif isinstance(value, str):
        raise TypeError("a text is no number")
    return float(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _cell(value: Any) -> Any:
    """As the csv module writes it well; a list or an object as JSON."""
    return json.dumps(value) if type(value) in (list, dict) else value


def _shown(line: bytes) -> str:
    if not line:
        return "It printed nothing."
    return f"Its last line is {line[:_SHOWN_CHARACTERS].decode(errors='replace')!r}."
