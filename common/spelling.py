"""Values as people write them: ``0.1,0.2``, ``80:120:5`` for 80, 85 … 120, or one value as JSON, such as ``[1, 2]``.

A text says nothing of its type; where the parameter has one, that decides what the text is read as.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

MOST_VALUES = 100_000
# Far more than anybody writes, and far less than what walks through values and tracebacks can go down.
MOST_LEVELS = 100

# No 007 and no 1_000, which are texts to most people; no nan, which JSON cannot hold.
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)|[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(inf|infinity|nan)", re.IGNORECASE)
_RANGE_PARTS = 3
_TOO_DEEP = "it is nested too deeply"
# A float written out has up to 1,075; of a number of 1,000,000 digits each value of a range would take a second.
_MOST_DIGITS = 1_200
# Beyond, a whole number among floats is one of them.
_MOST_WHOLE = 2**53


class Kind(StrEnum):
    """What a parameter takes, in JSON Schema's words where it has one."""

    ANY = "any"
    NUMBER = "number"
    TEXT = "string"
    LIST = "array"
    OBJECT = "object"
    #: What a program of the command line gets: a single value stays as it was typed.
    TYPED = "typed"


class Takes(NamedTuple):
    """What a text is read as: ``null`` is None where ``none`` says that the parameter can be that, and else a text."""

    kind: Kind
    none: bool = False


_RANGELESS = (Kind.TEXT, Kind.LIST, Kind.OBJECT)


def parse_values(text: str, kind: Kind = Kind.ANY, *, none: bool = False) -> list[Any]:
    """The values that a text stands for: several make a sweep. Raises ValueError with what to write instead.

    What begins with ``[``, ``{`` or ``"`` is one value, as JSON.
    """
    if _is_json(text):
        return [_from_json(text)]
    parts = text.split(",")
    if len(parts) == 1 and kind not in _RANGELESS and _is_range(text):
        return _range(text)
    if len(parts) == 1 or kind in (Kind.LIST, Kind.OBJECT):
        return [parse_value(text, kind, none=none)]
    if kind not in _RANGELESS and any(_is_range(part) for part in parts):
        raise ValueError(f"{text}: a range stands alone; write out its values, or the others")
    return parse_column(parts, kind, none=none)


def parse_value(text: str, kind: Kind = Kind.ANY, *, none: bool = False) -> Any:
    """The one value that a text stands for, commas and colons in it or not. Raises ValueError."""
    if _is_json(text):
        return _from_json(text)
    if none and text.strip() == "null":
        return None
    if kind in (Kind.LIST, Kind.OBJECT):
        example = "[1, 2]" if kind is Kind.LIST else '{"a": 1}'
        raise ValueError(f"{text!r:.80} is not JSON, which this parameter takes: such as {example}")
    if kind is Kind.TEXT:
        return text
    if kind is Kind.TYPED:
        return _canonical(text)
    if kind is Kind.NUMBER and (number := _declared_number(text)) is not None:
        return number
    number = _number(text)
    return number if number is not None else {"true": True, "false": False}.get(text.lower(), text)


def parse_column(texts: Sequence[str], kind: Kind = Kind.ANY, *, none: bool = False) -> list[Any]:
    """A parameter's values at the points of a sweep. Raises ValueError.

    Where all of them are numbers a program gets numbers, so that the results have a column of numbers.
    """
    if kind is Kind.TYPED:
        numbers = [_number(text) for text in texts]
        if None not in numbers:
            return numbers
    return [parse_value(text, kind, none=none) for text in texts]


class GivenTwice(ValueError):
    """A key that an object names twice: whoever takes the last of them does what nobody may have meant."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r:.80} is there twice in one object; give it once")
        self.name = name


def read_json(text: str | bytes) -> Any:
    """JSON in which no object names a key twice, and not too deep. Raises ValueError that says where it is not that."""
    try:
        found = json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (json.JSONDecodeError, UnicodeDecodeError, GivenTwice):
        raise
    except ValueError:
        raise ValueError("a number in it has too many digits") from None
    level, levels = [found], 0
    while level := [each for value in level for each in _within(value)]:
        levels += 1
        if levels > MOST_LEVELS:
            raise ValueError(_TOO_DEEP)
    return found


def _within(value: Any) -> Iterable[Any]:
    return value.values() if type(value) is dict else value if type(value) is list else ()


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its pairs, as ``json.loads`` takes it. Raises :class:`GivenTwice`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise GivenTwice(next(name for name, count in counts.items() if count > 1))
    return found


def _is_json(text: str) -> bool:
    return text.startswith(("[", "{", '"'))


def _from_json(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(
            f"{text:.80}: what begins with {text[0]} is one value as JSON, and this is none ({reason}); "
            f"as a text, write {json.dumps(text):.80}"
        ) from None


def _is_range(text: str) -> bool:
    """Whether it was meant as a range: a text such as a:b:c has no number in it."""
    parts = [part.strip() for part in text.split(":")]
    return len(parts) == _RANGE_PARTS and any(
        _number(part) is not None or _NOT_FINITE.fullmatch(part) for part in parts
    )


def _range(text: str) -> list[Any]:
    parts = [part.strip() for part in text.split(":")]
    numbers = [_number(part) for part in parts]
    if None in numbers:
        raise ValueError(
            f"{text}: START:STOP:STEP must be three finite numbers; as a text, write {json.dumps(text):.80}"
        )
    start, stop, step = exact = [_exact(text, part) for part in parts]
    if step == 0 or (stop > start and step < 0) or (stop < start and step > 0):
        raise ValueError(f"{text}: the step leads away from the end")
    count = (stop - start) // step + 1
    if count > MOST_VALUES:
        raise ValueError(f"{text}: more than {MOST_VALUES:_} values")
    if all(isinstance(number, int) for number in numbers):
        return [int(start + number * step) for number in range(count)]
    # As whole numbers of a common unit: many times faster than fractions.
    unit = math.lcm(*(number.denominator for number in exact))
    first, each = int(start * unit), int(step * unit)
    values = [_plain(first + number * each, unit) for number in range(count)]
    if any(one == other for one, other in pairwise(values)):
        raise ValueError(f"{text}: the step is too small: two of its values are the same number to a computer")
    return values


def _exact(text: str, part: str) -> Fraction:
    """A finite number as it is written; with so few digits, and such a power of ten, that it is soon computed with."""
    if len(part) > _MOST_DIGITS:
        raise ValueError(f"{text:.80} …: a number in it has more than {_MOST_DIGITS} digits")
    if float(part) == 0:
        if re.search("[1-9]", re.split("[eE]", part)[0]):
            raise ValueError(f"{text}: {part} is too small: to a computer it is 0")
        return Fraction(0)
    return Fraction(part)


def _plain(value: int, unit: int) -> float | int:
    """``value / unit``, rounded once; where it is whole without the point, as people write it."""
    whole, rest = divmod(value, unit)
    return whole if not rest and abs(whole) <= _MOST_WHOLE else value / unit


def _number(text: str) -> int | float | None:
    """A number that is plainly written and finite."""
    match = _NUMBER.fullmatch(text.strip())
    return _convert(text, whole=match[1] is not None) if match else None


def _declared_number(text: str) -> int | float | None:
    """As Python reads numbers: where only a number can be meant 1_000 is one."""
    whole = _convert(text, whole=True)
    return _convert(text, whole=False) if whole is None else whole


def _convert(text: str, *, whole: bool) -> int | float | None:
    try:
        value = int(text) if whole else float(text)
        # Also a whole number that no float can hold: what is computed with it would fail.
        return value if math.isfinite(value) else None
    except (ValueError, OverflowError):
        return None


def _canonical(text: str) -> Any:
    """A number or a truth value where a program is given the same text for it, else the text."""
    number = _number(text)
    if number is not None and json.dumps(number) == text.strip():
        return number
    return {"true": True, "false": False}.get(text, text.strip() if number is not None else text)
