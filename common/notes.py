"""``control.json``: what people did to a batch since it was submitted, where an emptied Redis cannot undo it."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import outputs
from common.errors import StorageUnavailable

# (first, count)
Interval = tuple[int, int]


class Notes:
    """The notes in a batch's directory; writers take turns by a lock of their own."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def read(self) -> dict[str, Any]:
        """What is noted; what nobody changed is missing.

        ``held``, ``throttle``, ``priority``, ``max_fails``, and two lists of [first, count]: jobs that are
        ``cancelled`` shall not run, unless they have completed; those of them that are ``closed`` had not, by the
        ledger's own word, so that a CSV of theirs is no result.
        """
        return outputs.read_control(self._place)

    def write(self, noted: dict[str, Any]) -> None:
        """Replace them, synced. Raises :class:`StorageUnavailable`."""
        try:
            outputs.write_synced(self._place / outputs.CONTROL_NAME, json.dumps(noted, allow_nan=False).encode())
        except OSError as error:
            raise StorageUnavailable(f"{self._place}: {error.strerror}", field="OUTPUT_DIR") from error

    def set(self, field: str, value: int) -> None:
        """Note a hold, throttle, priority or max_fails."""
        self.write({**self.read(), field: value})

    def cancel(self, intervals: Sequence[Interval], closed: Sequence[Interval] = ()) -> None:
        """Note that these jobs are cancelled, unless they have ended, and those in ``closed`` whatever lies there."""
        noted = self.read()
        more = {"cancelled": intervals, "closed": closed}
        after = {name: united([*noted.get(name, []), *jobs]) for name, jobs in more.items()}
        self._replace(noted, after)

    def run_again(self, intervals: Sequence[Interval]) -> None:
        """Note that these jobs are no longer cancelled."""
        noted = self.read()
        self._replace(noted, {name: without(noted.get(name, []), intervals) for name in ("cancelled", "closed")})

    def _replace(self, noted: dict[str, Any], changed: dict[str, list[Interval]]) -> None:
        # As JSON has them.
        lists = {name: [list(pair) for pair in jobs] for name, jobs in changed.items() if jobs or name in noted}
        if {**noted, **lists} != noted:
            self.write({**noted, **lists})


def united(intervals: Iterable[Sequence[int]]) -> list[Interval]:
    """The same jobs in as few intervals as possible, in order."""
    found: list[Interval] = []
    for first, count in sorted((first, count) for first, count in intervals):
        if found and first <= sum(found[-1]):
            begin, before = found[-1]
            found[-1] = (begin, max(before, first + count - begin))
        else:
            found.append((first, count))
    return found


def without(intervals: Iterable[Sequence[int]], others: Iterable[Sequence[int]]) -> list[Interval]:
    """What is left of the intervals when the others are taken out of them."""
    found: list[Interval] = []
    holes = united(others)
    at = 0
    for first, count in united(intervals):
        low, end = first, first + count
        while at < len(holes) and sum(holes[at]) <= low:
            at += 1
        while at < len(holes) and holes[at][0] < end:
            hole, size = holes[at]
            if hole > low:
                found.append((low, hole - low))
            low = max(low, hole + size)
            if low >= end:
                # It may reach into the next interval, too.
                break
            at += 1
        if low < end:
            found.append((low, end - low))
    return found
