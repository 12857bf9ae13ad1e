"""``control.json``: what people did to a batch since it was submitted, where an emptied Redis cannot undo it."""

import json
from collections.abc import Sequence
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
        """``cancelled`` as [[first, count]], ``held``, ``throttle``, ``priority``; what nobody changed is missing."""
        return outputs.read_control(self._place)

    def write(self, noted: dict[str, Any]) -> None:
        """Replace them, synced. Raises :class:`StorageUnavailable`."""
        try:
            outputs.write_synced(self._place / outputs.CONTROL_NAME, json.dumps(noted).encode())
        except OSError as error:
            raise StorageUnavailable(f"{self._place}: {error.strerror}", field="OUTPUT_DIR") from error

    def set(self, field: str, value: int) -> None:
        """Note a hold, throttle or priority."""
        self.write({**self.read(), field: value})

    def cancel(self, intervals: Sequence[Interval]) -> None:
        """Note that these jobs are cancelled, unless they have ended."""
        noted = self.read()
        self.write({**noted, "cancelled": united([*noted.get("cancelled", []), *intervals])})

    def run_again(self, intervals: Sequence[Interval]) -> None:
        """Note that these jobs are no longer cancelled."""
        noted = self.read()
        if noted.get("cancelled"):
            self.write({**noted, "cancelled": without(noted["cancelled"], intervals)})


def united(intervals: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same jobs in as few intervals as possible, in order."""
    found: list[list[int]] = []
    for first, count in sorted((first, count) for first, count in intervals):
        if found and first <= found[-1][0] + found[-1][1]:
            found[-1][1] = max(found[-1][1], first + count - found[-1][0])
        else:
            found.append([first, count])
    return found


def without(intervals: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> list[list[int]]:
    """What is left of the intervals when the others are taken out of them."""
    found: list[list[int]] = []
    holes = united(others)
    for first, count in united(intervals):
        low, end = first, first + count
        for hole, size in holes:
            if hole + size <= low or hole >= end:
                continue
            if hole > low:
                found.append([low, hole - low])
            low = max(low, hole + size)
        if low < end:
            found.append([low, end - low])
    return found
