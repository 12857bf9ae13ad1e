"""What becomes of a function's result: its bytes, its numbers, and what is refused because it was not declared so."""

import csv
import enum
import io
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import results
from common.returned import Returned, WrongResult

NUMBERS = st.integers(-(10**300), 10**300) | st.floats() | st.booleans()
CELLS = NUMBERS | st.none() | st.text(max_size=5) | st.lists(NUMBERS, max_size=5)
NAMES = st.text(max_size=4).filter(lambda name: name != "x")


class Level(enum.Enum):
    """A member's text is its name."""

    LOW = 1


class Colour(int, enum.Enum):
    """A number whose text is its name."""

    RED = 2


class Half:
    """A number of another library."""

    def __float__(self) -> float:
        return 0.5

    def __str__(self) -> str:
        return "half"


def read(result: Any, kind: type = float) -> tuple[bytes, tuple[float, ...]]:
    """The result of a simulation that declares x."""
    return Returned("f", {"x": kind}).read(result)


@given(st.lists(st.tuples(st.dictionaries(NAMES, CELLS, max_size=3), NUMBERS), min_size=1, max_size=5))
def test_a_plain_row_is_the_csv_modules(rows: list[tuple[dict[str, Any], Any]]) -> None:
    """Byte for byte what csv writes, whatever the row before was; and the record says what the CSV does."""
    reader = Returned("f", {"x": float})
    for others, number in rows:
        row = {**others, "x": number}
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([list(row), row.values()])
        data, outputs = reader.read(row)
        assert data == buffer.getvalue().encode()
        assert repr(outputs) == repr((float(number),))


@pytest.mark.parametrize("size", [0, 1, 1001, 2000])
def test_arrays_are_whole_wherever_they_are(size: int) -> None:
    """In a dict, in the rows of a table, and in a list: as the list of Python's numbers."""
    array = np.random.default_rng(size).random(size)
    wanted = read({"x": 1.0, "a": array.tolist()})[0]
    for value in (array, list(array), np.array(array, dtype=object)):
        assert read({"x": 1.0, "a": value})[0] == wanted
        assert read([{"x": np.float64(1), "a": value}] * 2)[0] == wanted + wanted.split(b"\r\n", 1)[1]


def test_a_list_is_looked_at_in_every_row() -> None:
    """Also when the first ones were plain."""
    reader = Returned("f", {"x": float})
    row = {"x": 1.0, "a": [0.5, 1]}
    assert reader.read(row) == reader.read({"x": 1.0, "a": [np.float64(0.5), np.int64(1)]}) == reader.read(row)
    assert row == {"x": 1.0, "a": [0.5, 1]}


def test_a_table_of_odd_numbers_is_whole() -> None:
    """Long doubles and times in an array, as alone."""
    data, outputs = Returned("f", {"c1": float}).read(np.array([[1, 2], [3, 4]], dtype="g"))
    assert (data, outputs) == (b"c0,c1\r\n1.0,2.0\r\n3.0,4.0\r\n", (4.0,))
    times = np.array([["2026-01-02", "2026-01-03"]], dtype="M8[ns]")
    assert Returned("f", {}).read(times)[0].startswith(b"c0,c1\r\n2026-01-02T00:00:00.000000000,2026-01-03")


@pytest.mark.parametrize(
    ("kind", "value", "cell", "number"),
    [
        (float, 1, "1", 1.0),
        (float, True, "True", 1.0),
        (float, np.float32(0.1), "0.10000000149011612", 0.10000000149011612),
        (float, np.longdouble(0.5), "0.5", 0.5),
        (float, np.array(0.5), "0.5", 0.5),
        (float, math.inf, "inf", math.inf),
        (float, np.float32("-inf"), "-inf", -math.inf),
        (float, Decimal("1.50"), "1.50", 1.5),
        (float, Fraction(1, 3), "0.3333333333333333", 1 / 3),
        (float, Half(), "0.5", 0.5),
        (int, 3, "3", 3.0),
        (int, -(2**53), "-9007199254740992", -(2.0**53)),
        (int, 10**22, "10000000000000000000000", 1e22),
        (int, 1e300, "1e+300", 1e300),
        (float, 2**53 + 1, "9007199254740993", 2.0**53),
        (int, True, "True", 1.0),
        (int, np.int8(-3), "-3", -3.0),
        (int, np.uint64(2**63), "9223372036854775808", 2.0**63),
        (int, np.bool_(True), "True", 1.0),
        (int, 3.0, "3.0", 3.0),
        (int, np.float64(3), "3.0", 3.0),
        (int, np.array(3), "3", 3.0),
        (int, Colour.RED, "2.0", 2.0),
        (bool, True, "True", 1.0),
        (bool, np.bool_(False), "False", 0.0),
        (bool, 1, "1", 1.0),
        (bool, np.int64(0), "0", 0.0),
        (bool, 0.0, "0.0", 0.0),
    ],
)
def test_what_was_declared_may_come(kind: type, value: Any, cell: str, number: float) -> None:
    """And the CSV reads back as the very number that is recorded."""
    data, outputs = read({"x": value}, kind)
    assert data.decode() == f"x\r\n{cell}\r\n"
    assert outputs == (number,)
    assert float((results.parse(data) or {})["x"]) == number
    rows = [{"x": None, "y": 1}, {"x": value, "y": 2}]
    assert read(rows, kind) == (f"x,y\r\n,1\r\n{cell},2\r\n".encode(), outputs)


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), np.longdouble("nan"), Decimal("nan")])
def test_nan_is_a_number(value: Any) -> None:
    """It is kept, for a float."""
    data, outputs = read({"x": value})
    assert data.lower() == b"x\r\nnan\r\n"
    assert math.isnan(outputs[0])


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (float, "1.5", "x = '1.5', which is no number; it is declared as float"),
        (float, np.str_("1.5"), "x = np.str_('1.5'), which is no number"),
        (float, b"1.5", "x = b'1.5', which is no number"),
        (float, None, "x = None, which is no number"),
        (float, [1.0], "x = [1.0], which is no number"),
        (float, np.array([1.0]), "x = array([1.]), which is no number"),
        (float, 1j, "x = 1j, which is no number"),
        (float, np.complex128(1), "x = np.complex128(1+0j), which is no number"),
        (float, 10**400, "which is no number"),
        (float, np.ma.masked, "x = masked, which is no number"),
        (float, Level.LOW, "which is no number"),
        (float, object(), "x, which is of type object; return numbers"),
        (int, 7.25, "x = 7.25, which is no whole number; it is declared as int"),
        (int, np.float32(0.5), "x = np.float32(0.5), which is no whole number"),
        (
            int,
            2**53 + 1,
            "x = 9007199254740993, which is recorded as a double, and that cannot hold it; declared as float",
        ),
        (int, -(2**63) + 1, "x = -9223372036854775807, which is recorded as a double"),
        (int, np.uint64(2**64 - 1), "which is recorded as a double"),
        (int, Decimal(2**53 + 1), "which is recorded as a double"),
        (int, "7", "x = '7', which is no whole number; it is declared as int"),
        (int, math.nan, "x = nan, which is no whole number; it is declared as int; as a float it may be"),
        (int, -math.inf, "x = -inf, which is no whole number; it is declared as int; as a float it may be"),
        (bool, "True", "x = 'True', which is neither true nor false; it is declared as bool"),
        (bool, 2, "x = 2, which is neither true nor false; it is declared as bool"),
        (bool, math.nan, "x = nan, which is neither true nor false"),
    ],
)
def test_what_was_not_declared_is_refused(kind: type, value: Any, told: str) -> None:
    """With the output, the value and what it was to be; also after a good one, and in the last row of a table."""
    good = Returned("f", {"x": kind})
    good.read({"x": 1})
    for result in ({"x": value}, [{"x": 0}, {"x": value}]):
        with pytest.raises(WrongResult) as caught:
            good.read(result)
        assert str(caught.value).startswith("f returned x")
        assert told in str(caught.value)
        assert len(str(caught.value)) < 200


def test_a_cell_that_cannot_be_written_is_named() -> None:
    """In a dict, and in any row of a table."""
    for result in ({"x": 1, "tags": {"a"}}, [{"x": 1, "tags": {"a"}}, {"x": 1, "tags": 0}]):
        with pytest.raises(WrongResult, match="f returned tags, which is of type set, whose order differs"):
            read(result)


def test_rows_of_ever_other_columns_are_not_kept() -> None:
    """Memory does not grow with them."""
    reader = Returned("f", {"x": float})
    for number in range(1000):
        assert reader.read({"x": 1.0, f"y{number}": 1})[0] == f"x,y{number}\r\n1.0,1\r\n".encode()
    assert len(reader._shapes) < 100
