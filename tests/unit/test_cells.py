"""What a cell holds: nothing is left out, whatever NumPy prints of it, and what was plain stays as it was."""

import ast
import collections
import datetime as dt
import enum
import math
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cells import PLAIN_ALONE, Unwritable, written

MANY = np.random.default_rng(1).random((2000, 2))
PLAIN_CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
FLOATS = st.lists(st.floats(), max_size=20)


class Point(collections.namedtuple("Point", "x y")):
    """Its text names the fields."""


class Level(enum.IntEnum):
    """Numbers with names."""

    LOW = 1


class Nameless:
    """Its text is its address."""


class Named(Nameless):
    """Its text alone is its own, and within a list its address."""

    def __str__(self) -> str:
        return "named"


class Column:
    """As a pandas Series, as far as it matters."""

    to_frame = to_dict = tolist = None


@given(PLAIN_CELLS)
def test_what_is_plain_stays_as_it_is(value: Any) -> None:
    """Not even copied, and its text says all of it."""
    assert written(value) is value
    assert ast.literal_eval(repr(written(value))) == value


@pytest.mark.parametrize("value", [MANY, MANY[:, 0], list(MANY[:, 0]), list(MANY), tuple(MANY[0]), {"deep": [MANY]}])
def test_nothing_is_left_out_of_an_array(value: Any) -> None:
    """Every number, to the last bit, whatever NumPy would print."""
    with np.printoptions(precision=2, threshold=5):
        text = str(written(value))
    back = ast.literal_eval(text)
    assert type(back) is (list if isinstance(value, np.ndarray) else type(value))
    inner, wanted = (back["deep"][0], MANY) if isinstance(value, dict) else (back, value)
    np.testing.assert_array_equal(inner, wanted)


@given(FLOATS, st.sampled_from(["d", "f", "e"]))
def test_nan_and_infinity_are_kept(values: list[float], code: str) -> None:
    """By their names, in arrays and in lists."""
    with np.errstate(over="ignore"):
        array = np.array(values, dtype=code)
    wanted = [float(value) for value in array]
    for given_ in (array, list(array), array.tolist()):
        back = eval(str(written(given_)), {"nan": math.nan, "inf": math.inf})
        assert [repr(value) for value in back] == [repr(value) for value in wanted]


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)))
def test_a_list_of_numpys_numbers_is_that_of_pythons(values: list[Any]) -> None:
    """One after the other, whatever their mixture."""
    found = written([np.array(value)[()] for value in values])
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize("kind", sorted(PLAIN_ALONE, key=str))
def test_alone_these_need_no_care(kind: type) -> None:
    """Their text is that of Python's value; so it was before anything was changed here."""
    value = kind() if kind is type(None) else kind(1)
    assert str(value) == str(written(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.1), "0.10000000149011612"),
        (np.float64(0.1), "0.1"),
        (np.array(3), "3"),
        (np.datetime64("2026-01-02T03:04:05.000000006", "ns"), "2026-01-02T03:04:05.000000006"),
        (np.array(["2026-01-02"], "M8[ns]"), "['2026-01-02T00:00:00.000000000']"),
        (np.array([5], "m8[s]"), "['5 seconds']"),
        (np.longdouble(1) / 8, "0.125"),
        (np.array([1], "g"), "['1.0']"),
        (np.array([1 + 2j]), "[(1+2j)]"),
        (np.array(["a", "b"]), "['a', 'b']"),
        (np.array([1, None, "a", np.int8(2)], dtype=object), "[1, None, 'a', 2]"),
        (np.array([(1, 0.5)], dtype=[("n", "i4"), ("x", "f4")]), "[(1, 0.5)]"),
        (np.ma.array([1, 2], mask=[False, True]), "[1, None]"),
        (np.ma.array([1, 2], mask=[False, True], dtype="g"), "['1.0', None]"),
        (pa.array([1, None, 2]), "[1, None, 2]"),
        (memoryview(b"ab"), "[97, 98]"),
        ({np.int64(1): np.float64(0.5), "a": [np.float64(1)]}, "{1: 0.5, 'a': [1.0]}"),
        (MappingProxyType({"a": 1}), "{'a': 1}"),
        ((np.float64(1), [np.int64(2)]), "(1.0, [2])"),
        ({1, 2}, "{1, 2}"),
        (Point(1, 2), "Point(x=1, y=2)"),
        (Level.LOW, "1"),
        (Decimal("1.50"), "1.50"),
        (Fraction(1, 3), "1/3"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        ([dt.date(2026, 1, 2)], "[datetime.date(2026, 1, 2)]"),
        (Named(), "named"),
    ],
)
def test_everything_else_is_as_plain_as_it_can_be(value: Any, text: str) -> None:
    assert str(written(value)) == text


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(("code", "text"), [("i", "[[1, 2]]"), ("g", "[['1.0', '2.0']]")])
def test_a_matrix_comes_to_an_end(code: str, text: str) -> None:
    """Its rows are matrices again."""
    assert str(written(np.matrix([[1, 2]], dtype=code))) == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (pa.table({"x": [1]}), "is of type Table; return its columns as lists"),
        ([pa.table({"x": [1]})], "is of type Table; return its columns as lists"),
        (Column(), "is of type Column; return its .to_list()"),
        ({"a", "b"}, "is of type set, whose order differs from run to run; return a sorted list"),
        (Nameless(), "is of type Nameless; return numbers, texts, or lists of them"),
        ([Nameless()], "is of type Nameless"),
        ([Named()], "is of type Named"),
        ({"a": Nameless()}, "is of type Nameless"),
        (np.array([Nameless()]), "is of type Nameless"),
        (lambda: 0, "is of type function"),
        ((n for n in (1, 2)), "is of type generator"),
    ],
)
def test_what_has_no_text_of_its_own_is_told(value: Any, told: str) -> None:
    """An address is another one in each process; and a printed table is cut short."""
    with pytest.raises(Unwritable) as caught:
        written(value)
    assert str(caught.value).startswith(told)
