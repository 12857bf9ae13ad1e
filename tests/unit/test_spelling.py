"""Values as people write them: what each kind of parameter reads, and that what cannot be read says what to write."""

import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.programs.placeholders import text as as_program_gets_it
from common.spelling import MOST_VALUES, Kind, parse_column, parse_value, parse_values, read_json

ANY, NUMBER, TEXT, LIST, OBJECT, TYPED = Kind.ANY, Kind.NUMBER, Kind.TEXT, Kind.LIST, Kind.OBJECT, Kind.TYPED
WHOLE = st.integers(-(10**20), 10**20)


def same(found: list[Any], wanted: list[Any]) -> bool:
    """Whether these are the same values of the same types."""
    return json.dumps(found) == json.dumps(wanted)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,0.2,0.3", [0.1, 0.2, 0.3]),
        ("80:120:20", [80, 100, 120]),
        ("0:0.3:0.1", [0, 0.1, 0.2, 0.3]),
        ("3:1:-1", [3, 2, 1]),
        ("5:5:1", [5]),
        ("call,put", ["call", "put"]),
        ("true,False", [True, False]),
        ("7", [7]),
        ("+5, -0.5,.5,5.,1e3,1E-3", [5, -0.5, 0.5, 5.0, 1000.0, 0.001]),
        ("1_2,007,00.5,0x1,\u0661", ["1_2", "007", "00.5", "0x1", "\u0661"]),
        ("nan,inf,1e999", ["nan", "inf", "1e999"]),
        ("a:b:c", ["a:b:c"]),
        ("x:1,2:3", ["x:1", "2:3"]),
        ("b:c", ["b:c"]),
        ('"a,b"', ["a,b"]),
        ('"5"', ["5"]),
        ("[1,2]", [[1, 2]]),
        ('{"a": [1]}', [{"a": [1]}]),
        ("", [""]),
    ],
)
def test_what_is_known_by_its_looks(text: str, values: list[Any]) -> None:
    assert same(parse_values(text), values)


@pytest.mark.parametrize(
    ("kind", "text", "values"),
    [
        (TEXT, "5", ["5"]),
        (TEXT, "1.10,true", ["1.10", "true"]),
        (TEXT, "12:30:00", ["12:30:00"]),
        (TEXT, "0:inf:1,2", ["0:inf:1", "2"]),
        (TEXT, '"a,b"', ["a,b"]),
        (NUMBER, "1_000,007", [1000, 7]),
        (NUMBER, "nan", ["nan"]),
        (NUMBER, "many", ["many"]),
        (NUMBER, "1:2:0.5", [1, 1.5, 2]),
        (LIST, "[1,2]", [[1, 2]]),
        (TYPED, "1.10", ["1.10"]),
        (TYPED, "1e-3", ["1e-3"]),
        (TYPED, "0.1", [0.1]),
        (TYPED, "True", ["True"]),
        (TYPED, "true", [True]),
        (TYPED, "007", ["007"]),
        (TYPED, "nan", ["nan"]),
        (TYPED, "0.10,0.20,1", [0.1, 0.2, 1]),
        (TYPED, "0.10,auto,1", ["0.10", "auto", 1]),
        (TYPED, "0:0.2:0.1", [0, 0.1, 0.2]),
    ],
)
def test_what_a_kind_decides(kind: Kind, text: str, values: list[Any]) -> None:
    assert same(parse_values(text, kind), values)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1:2:0", "leads away"),
        ("1:2:-1", "leads away"),
        ("0:1:1e-9", "more than 100_000"),
        ("0:100000:1", "more than 100_000"),
        ("0:inf:1", "three finite numbers"),
        ("nan:1:1", "three finite numbers"),
        ("-1e308:1e308:1", "more than"),
        ("0:1:1e-320", "more than"),
        ("0:1:1e-400", "1e-400 is too small: to a computer it is 0"),
        ("0:1:-1e-999999999", "1e-999999999 is too small"),
        ("1e-999999999:1:1", "1e-999999999 is too small"),
        ("0:1e999999:1", "three finite numbers"),
        ("0:1e999999999:1e999999998", "three finite numbers"),
        (f"0:1:0.{'0' * 1500}1e1400", "has more than 1200 digits"),
        ("1:1.0000000000000005:1e-16", "the step is too small: two of its values are the same number"),
        ("9007199254740993.5:9007199254740996.5:1", "the step is too small"),
        ("a:1:c", 'three finite numbers; as a text, write "a:1:c"'),
        ("1:3:1,7", "a range stands alone"),
        ("[1", 'is one value as JSON, and this is none .*; as a text, write "\\[1"'),
        ('"a","b"', "is one value as JSON"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("kind", [ANY, NUMBER, TYPED])
def test_what_cannot_be_read(kind: Kind, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_values(text, kind)


@pytest.mark.parametrize(("kind", "text"), [(LIST, "1,2"), (LIST, "1:2:1"), (OBJECT, "a"), (LIST, "")])
def test_a_list_is_written_as_json(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match="is not JSON, which this parameter takes: such as"):
        parse_values(text, kind)


def test_the_longest_range() -> None:
    assert len(parse_values(f"1:{MOST_VALUES}:1")) == MOST_VALUES
    assert len(parse_values(f"0:{(MOST_VALUES - 1) / 10}:0.1")) == MOST_VALUES


@given(WHOLE, st.integers(-50, 50).filter(bool), st.integers(0, 200))
def test_a_range_of_whole_numbers_is_exact(start: int, step: int, count: int) -> None:
    """However large they are, and whether or not the end is met."""
    stop = start + step * count + (step // abs(step)) * (abs(step) // 2)
    assert parse_values(f"{start}:{stop}:{step}") == [start + step * number for number in range(count + 1)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0:1:0.1", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ("1700000000.123:1700000003.123:1", [1700000000.123, 1700000001.123, 1700000002.123, 1700000003.123]),
        ("1:1.0000000000003:1e-13", [1, 1.0000000000001, 1.0000000000002, 1.0000000000003]),
        ("9007199254740993.5:9007199254740999.5:3", [9007199254740994.0, 9007199254740996.0, 9007199254741000.0]),
        ("1234567.1234567:1234568.5:1", [1234567.1234567, 1234568.1234567]),
        ("0:0.35:0.1", [0, 0.1, 0.2, 0.3]),
        ("0:1:0.3333333334", [0, 0.3333333334, 0.6666666668]),
        ("1e300:1.2e300:1e299", [1e300, 1.1e300, 1.2e300]),
        ("0:5e-324:5e-324", [0, 5e-324]),
        ("0e999999999:1:0.5", [0, 0.5, 1]),
        (" 5. : -.5 : -2.75 ", [5, 2.25, -0.5]),
    ],
)
def test_a_range_gives_the_numbers_that_were_written(text: str, values: list[Any]) -> None:
    """To the last digit, the start among them; it ends where its end is, as they are written."""
    assert same(parse_values(text), values)


DECIMALS = st.decimals(-(10**5), 10**5, places=9).map(lambda value: value.normalize())


@given(DECIMALS, DECIMALS.filter(bool), st.integers(0, 50), st.floats(0, 0.999))
def test_a_range_is_as_decimals_have_it(start: Decimal, step: Decimal, count: int, rest: float) -> None:
    """Each value is the nearest float to the start and its number of steps; the end is met exactly, or not at all."""
    exact = [Fraction(start) + number * Fraction(step) for number in range(count + 1)]
    stop = start + count * step
    assert parse_values(f"{start}:{stop}:{step}") == [float(value) for value in exact]
    beyond = stop + step * Decimal(rest).quantize(Decimal("0.001"), "ROUND_DOWN")
    assert parse_values(f"{start}:{beyond}:{step}") == parse_values(f"{start}:{stop}:{step}")
    if count:
        before = stop - step * Decimal("0.001")
        assert parse_values(f"{start}:{before}:{step}") == [float(value) for value in exact[:-1]]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False).filter(bool))
def test_a_range_of_any_floats(start: float, step: float) -> None:
    """It begins with its start and has as many values as fit, none of them twice; or it is refused."""
    stop = f"{Decimal(start) + 3 * Decimal(step):.25e}"
    try:
        values = parse_values(f"{start!r}:{stop}:{step!r}")
    except ValueError:
        return
    assert values[0] == start
    fit = (Fraction(stop) - Fraction(repr(start))) // Fraction(repr(step)) + 1
    assert len(set(values)) == len(values) == fit


@given(st.sampled_from(list(Kind)), st.text(max_size=12) | st.from_regex(r"[-+0-9.e:,\[\]\"{}a]{0,12}", fullmatch=True))
def test_any_text_is_read_or_refused(kind: Kind, text: str) -> None:
    """With ValueError and nothing else; what is read is JSON, and no number in it that JSON lacks."""
    try:
        values = parse_values(text, kind)
    except ValueError:
        return
    assert values
    assert all(not isinstance(value, float) or math.isfinite(value) for value in values)
    json.dumps(values)


@given(st.sampled_from(list(Kind)), st.text() | st.lists(WHOLE | st.text()) | st.dictionaries(st.text(), WHOLE))
def test_json_is_taken_as_it_is(kind: Kind, value: Any) -> None:
    """The one way to write any text or list, whatever the parameter takes."""
    assert parse_values(json.dumps(value), kind) == [value] == [parse_value(json.dumps(value), kind)]


NUMBERS = st.integers().map(str) | st.floats().map(repr) | st.from_regex(r"[-+]?[0-9_]*\.?[0-9]*(e-?[0-9]+)?")


@given(st.text() | NUMBERS | st.sampled_from(["true", "True", "null", "1.10", "1e5", "-0", "007"]))
def test_a_program_gets_what_was_typed(typed: str) -> None:
    """To the letter, without the blanks around a number; unless it is JSON, or several values."""
    if not typed.startswith(("[", "{", '"')):
        assert as_program_gets_it(parse_value(typed, TYPED)) in (typed, typed.strip())


@pytest.mark.parametrize(("text", "kind"), [("80,90", ANY), ("80:120:5", NUMBER), ("80,90", TYPED), ("a:1:c", TYPED)])
def test_one_value_is_no_list_and_no_range(text: str, kind: Kind) -> None:
    assert parse_value(text, kind) == text


def test_a_column() -> None:
    """Of numbers, for a program too; else each value by itself."""
    assert same(parse_column(["1.10", "2"], TYPED), [1.1, 2])
    assert same(parse_column(["1.10", "80,90"], TYPED), ["1.10", "80,90"])
    assert same(parse_column(["1.10", "x"], ANY), [1.1, "x"])


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"x": {"a": 1, "b": 2, "a": 3}}]'])
def test_json_with_a_key_twice(text: str) -> None:
    with pytest.raises(ValueError, match="'a' is there twice"):
        read_json(text)


def test_one_of_very_many_keys_twice() -> None:
    """Found in one pass: a body of the API has room for this many."""
    keys = ", ".join(f'"{number}": 1' for number in [*range(80_000), 79_999])
    with pytest.raises(ValueError, match="'79999' is there twice"):
        read_json(f"{{{keys}}}".encode())


def test_a_number_of_very_many_digits() -> None:
    """Python tells of its own settings."""
    with pytest.raises(ValueError, match=r"^a number in it has too many digits$"):
        read_json("9" * 5_000)
