"""Job numbers as people write them: ``42``, ``1-9``, ``0-90:10``, ``1,4,7``, ``7_42``, ``7_[1-9,20]``."""

import re

from common.errors import InvalidInput

MOST_SPANS = 10_000
# As Python writes it, 1_000 is a thousand, and 1__0 nothing.
_NUMBER = r"(?=[0-9_]{1,12}(?![0-9_]))([0-9]+(?:_[0-9]+)*)"
_PART = re.compile(rf"{_NUMBER}(?:-{_NUMBER}(?::{_NUMBER})?)?")
_ID = re.compile(r"([1-9][0-9]{0,11})(?:_(?:([0-9]{1,12})|\[([^\]]+)\]))?")

Span = tuple[int, int]


def parse_spans(text: str, jobs: int) -> list[Span]:
    """The spans (first, last) that a text such as ``1-9,20-30:5`` names, of a batch with ``jobs`` jobs.

    Raises :class:`InvalidInput` with the field ``jobs``.
    """
    found: list[Span] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if not match or int(match[3] or 1) < 1:
            raise InvalidInput(f"jobs: {part[:40]!r} is not a number or a span such as 1-9 or 1-99:10", field="jobs")
        low = int(match[1])
        high = int(match[2]) if match[2] else low
        step = int(match[3]) if match[3] else 1
        if low > high or low < 1 or high > jobs:
            raise InvalidInput(f"jobs: {part!r} is not within 1-{jobs}", field="jobs")
        alone = range(low, high + 1, step)
        # Before they are made: they may be fifty million.
        if len(found) + (1 if step == 1 else len(alone)) > MOST_SPANS:
            raise InvalidInput(f"jobs: more than {MOST_SPANS:_} spans; cancel the batch instead", field="jobs")
        found += [(low, high)] if step == 1 else [(index, index) for index in alone]
    return found


def parse_id(text: str) -> tuple[int, str]:
    """A batch's id and its jobs as text, "" for all: ``7`` → (7, ""), ``7_42`` → (7, "42"), ``7_[1-9]`` → (7, "1-9").

    Raises :class:`InvalidInput`.
    """
    match = _ID.fullmatch(text.strip())
    if not match:
        raise InvalidInput(f"{text[:40]!r} is not a batch or job id such as 7, 7_42 or 7_[1-9]", field="id")
    return int(match[1]), match[2] or match[3] or ""
