"""What a cell of a job's CSV holds: plain Python values, of which ``str`` leaves nothing out and NumPy's settings none.

An array or a list is written as Python writes a list, ``[84, 62, 95]``: ``ast.literal_eval`` gives it back, but for
``nan`` and ``inf``, which are kept by these names.
"""

import re
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np

#: Of these ``str`` says everything, alone and within a list.
PLAIN: frozenset[type] = frozenset((int, float, str, bool, type(None)))
#: Of these only alone: within a list they would be ``np.float64(0.5)``.
PLAIN_ALONE: frozenset[type] = PLAIN | {np.float64, np.bool_, np.str_} | {np.dtype(code).type for code in "bhilqBHILQ"}
# What Python says of objects that have no text of their own: it is another one in each process.
_ADDRESS = re.compile(r"<.* at 0x[0-9a-fA-F]+>", re.DOTALL)


class Unwritable(TypeError):
    """A value that a CSV cannot hold; the text says what it is, and what to return in its place."""


@singledispatch
def written(value: Any) -> Any:
    """The value with arrays, NumPy's numbers and all that lies within as plain Python values; what is plain is itself.

    Raises :class:`Unwritable`.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if hasattr(value, "to_frame"):
        raise Unwritable(f"is of type {kind.__name__}; return its .to_list(), or the index too, as a list of its own")
    if hasattr(value, "to_dict") or hasattr(value, "to_pydict"):
        raise Unwritable(f"is of type {kind.__name__}; return its columns as lists, or it alone, not within a dict")
    if hasattr(value, "tolist"):
        # An array of another library, or of Python's own.
        return written(value.tolist())
    if hasattr(value, "__array__") or _ADDRESS.fullmatch(str(value)):
        raise _no_text(value)
    return value


@written.register
def _(value: np.generic) -> Any:
    found = value.item()
    # Nanoseconds become a bare number, and long doubles stay what they are.
    return str(value) if isinstance(found, np.generic) or value.dtype.kind in "mM" else written(found)


@written.register
def _(value: np.ndarray) -> Any:
    if value.dtype.kind in "biuSU" or value.dtype.char in "efd":
        return value.tolist()
    # Not as a matrix, whose rows are matrices again.
    value = np.asarray(value)
    return written(value[()]) if value.ndim == 0 else [_within(each) for each in value]


@written.register(np.ma.MaskedArray)
def _(value: Any) -> Any:
    return written(value.tolist())


@written.register(list)
@written.register(tuple)
def _(value: Any) -> Any:
    kinds = set(map(type, value))
    if PLAIN.issuperset(kinds):
        return value
    if PLAIN_ALONE.issuperset(kinds):
        found = [each if type(each) in PLAIN else each.item() for each in value]
    else:
        found = [_within(each) for each in value]
    if all(one is other for one, other in zip(value, found, strict=True)):
        # As it was: one with named fields is written with them.
        return value
    return tuple(found) if isinstance(value, tuple) else found


@written.register
def _(value: Mapping) -> Any:  # type: ignore[type-arg]
    found = {_within(name): _within(each) for name, each in value.items()}
    pairs = zip(value.items(), found.items(), strict=True)
    same = isinstance(value, dict) and all(a is c and b is d for (a, b), (c, d) in pairs)
    return value if same else found


@written.register(set)
@written.register(frozenset)
def _(value: Any) -> Any:
    if not {int, float, bool}.issuperset(map(type, value)):
        raise Unwritable(
            f"is of type {type(value).__name__}, whose order differs from run to run; return a sorted list"
        )
    return value


def _within(value: Any) -> Any:
    """As :func:`written`, of what lies in a list: of that not ``str`` is written, but ``repr``."""
    found = written(value)
    if type(found) not in PLAIN and not isinstance(found, list | tuple | Mapping) and _ADDRESS.fullmatch(repr(found)):
        raise _no_text(found)
    return found


def _no_text(value: Any) -> Unwritable:
    return Unwritable(f"is of type {type(value).__name__}; return numbers, texts, or lists of them")
