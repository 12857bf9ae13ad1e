"""Slurm's array indices: ``0-15:2,20,30-39%4`` as an answer to "which index has job *i*?", without writing them out."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import gcd
from typing import Self

from common.errors import InvalidInput
from common.settings import MAX_JOBS

MOST_PARTS = 10_000
MOST_THROTTLE = 1_000_000
_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?")
_SPACE = re.compile(r"\s*([-,:%])\s*")
_WHOLE = re.compile(r"([^%]*)(?:%([0-9]{1,9}))?")


@dataclass(frozen=True)
class ArrayIndices:
    """The indices in the order in which they were written; job 1 has the first of them."""

    parts: tuple[range, ...]
    #: Most jobs that run at a time; 0: no limit.
    throttle: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1-10:2,15,20-25%4``. Raises :class:`InvalidInput` with the field ``array``."""
        whole = _WHOLE.fullmatch(_SPACE.sub(r"\1", text.strip()))
        if not whole:
            raise _wrong(f"{text[:40]!r} is not such as 1-100, 0-90:10, 1,5,9 or 1-100%4")
        throttle = int(whole[2]) if whole[2] else 0
        if whole[2] and not 1 <= throttle <= MOST_THROTTLE:
            raise _wrong(f"%{whole[2]} is how many run at a time; it must be from 1 to {MOST_THROTTLE:_}")
        pieces = whole[1].split(",")
        if len(pieces) > MOST_PARTS:
            raise _wrong(f"more than {MOST_PARTS:_} parts; write spans, such as 1-1000")
        found = cls(tuple(_part(piece) for piece in pieces), throttle)
        if found.count > MAX_JOBS:
            raise _wrong(f"{found.count:_} jobs are more than {MAX_JOBS:_}")
        twice = _twice(found.parts)
        if twice is not None:
            raise _wrong(f"index {twice} is there twice")
        return found

    @property
    def text(self) -> str:
        """The indices as :meth:`parse` reads them, without the throttle."""
        return ",".join(_text(part) for part in self.parts)

    @property
    def count(self) -> int:
        """Number of jobs."""
        return self._ends[-1]

    @property
    def minimum(self) -> int:
        """The lowest index."""
        return min(part[0] for part in self.parts)

    @property
    def maximum(self) -> int:
        """The highest index."""
        return max(part[-1] for part in self.parts)

    def at(self, job: int) -> int:
        """The index of job ``job``, from 1 to :attr:`count`."""
        if not 1 <= job <= self.count:
            raise IndexError(f"job {job} is not from 1 to {self.count}")
        which = bisect_right(self._ends, job - 1)
        return self.parts[which][job - 1 - (self._ends[which - 1] if which else 0)]

    @cached_property
    def _ends(self) -> list[int]:
        """For each part how many jobs there are up to its end."""
        return list(accumulate(len(part) for part in self.parts))


def _part(text: str) -> range:
    match = _PART.fullmatch(text)
    if not match:
        raise _wrong(f"{text[:40]!r} is not an index or a span such as 1-9 or 0-90:10")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    step = int(match[3]) if match[3] else 1
    if last < first:
        raise _wrong(f"{text} leads backwards; write {last}-{first}")
    if step < 1:
        raise _wrong(f"{text} has no step; it must be at least 1")
    return range(first, last + 1, step)


def _text(part: range) -> str:
    if len(part) == 1:
        return str(part[0])
    return f"{part[0]}-{part[-1]}" + (f":{part.step}" if part.step > 1 else "")


def _twice(parts: tuple[range, ...]) -> int | None:
    """An index that is in two of the parts."""
    return next(_doubles(sorted(parts, key=lambda part: part[0])), None)


def _doubles(parts: list[range]) -> Iterator[int]:
    reaching: list[range] = []
    for part in parts:
        # Only what reaches as far as this one begins can meet it.
        reaching = [other for other in reaching if other[-1] >= part[0]]
        yield from (common for other in reaching if (common := _common(other, part)) is not None)
        reaching.append(part)


def _common(one: range, other: range) -> int | None:
    """The lowest number that is in both, by the Chinese remainder theorem."""
    shared = gcd(one.step, other.step)
    apart = other[0] - one[0]
    if apart % shared:
        return None
    period = other.step // shared
    steps = apart // shared * pow(one.step // shared, -1, period) % period
    number, repeat = one[0] + one.step * steps, one.step * period
    low = max(one[0], other[0])
    number += max(0, -(-(low - number) // repeat)) * repeat
    return number if number <= min(one[-1], other[-1]) else None


def _wrong(reason: str) -> InvalidInput:
    return InvalidInput(f"array: {reason}", field="array")
