"""Where the jobs of a ``packed`` batch lie, by a scan of its segments; :mod:`common.packed` says what those are."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.packed import SEGMENT_NAME, Block, blocks

LOCATION = np.dtype([("segment", "<u2"), ("offset", "<u8"), ("length", "<u4")])
READ_ONLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
# Its number is 16 bits of a location.
_MOST_SEGMENTS = 2**16 - 1


@dataclass
class Segment:
    """A segment, and how much of it has been scanned."""

    name: str
    # The end of the last valid block, and of the last one that no bad one is before.
    end: int = 0
    whole: int = 0
    # Size and time of change when it was last scanned.
    seen: tuple[int, int] | None = None


class Catalog:
    """Where each job lies in one directory's segments, as far as they have been scanned."""

    def __init__(self, jobs: int) -> None:
        self.table = np.zeros(jobs, dtype=LOCATION)
        self.segments: list[Segment] = []
        #: There is nothing to be scanned.
        self.complete = False

    def cut(self, packed: int, index: int) -> bytes | None:
        """The CSV of a job that is known; None when it is not, or not there any more."""
        if not 0 < index <= len(self.table):
            return None
        number, offset, length = self.table[index - 1].item()
        if not 0 < number <= len(self.segments) or offset + length > self.segments[number - 1].end:
            return None
        try:
            descriptor = os.open(self.segments[number - 1].name, READ_ONLY, dir_fd=packed)
        except FileNotFoundError:
            return None
        try:
            data = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
        return data if len(data) == length else None

    def refresh(self, packed: int) -> bool:
        """Scan what is new; False when something that was scanned is no longer there, and all must be forgotten."""
        found = list_segments(packed)
        if any(segment.name not in found or found[segment.name][0] < segment.end for segment in self.segments):
            return False
        if self.complete:
            return True
        known = {segment.name for segment in self.segments}
        self.segments += [Segment(name) for name in sorted(found.keys() - known)]
        if len(self.segments) > _MOST_SEGMENTS:
            raise OSError(errno.EFBIG, f"there are more than {_MOST_SEGMENTS} segments")
        for number, segment in enumerate(self.segments, 1):
            if segment.seen != found[segment.name]:
                self._scan(packed, number, segment, found[segment.name][0])
                segment.seen = found[segment.name]
        return True

    def _scan(self, packed: int, number: int, segment: Segment, size: int) -> None:
        try:
            descriptor = os.open(segment.name, READ_ONLY, dir_fd=packed)
        except FileNotFoundError:
            # Renamed since it was listed: the next look starts anew.
            return
        try:
            # A bad block is looked at again: of what is just being written another machine may see the end first.
            for block in blocks(descriptor, segment.whole, size):
                self._enter(number, block)
                if block.start == segment.whole:
                    segment.whole = block.end
                segment.end = block.end
        finally:
            os.close(descriptor)

    def _enter(self, number: int, block: Block) -> None:
        last = int(block.indices.max())
        if last > len(self.table):
            grown = np.zeros(max(last, len(self.table) * 3 // 2), dtype=LOCATION)
            grown[: len(self.table)] = self.table
            self.table = grown
        rows = block.indices.astype(np.intp) - 1
        ends = np.cumsum(block.lengths, dtype=np.uint64)
        self.table["segment"][rows] = number
        self.table["offset"][rows] = ends - block.lengths + np.uint64(block.payload)
        self.table["length"][rows] = block.lengths


def damaged(packed: int) -> Iterator[tuple[str, int, int]]:
    """The parts of the segments that are no whole block: (name, first byte, byte behind the last). Raises OSError."""
    for name, (size, _) in sorted(list_segments(packed).items()):
        descriptor, end = os.open(name, READ_ONLY, dir_fd=packed), 0
        try:
            for block in blocks(descriptor, 0, size):
                if block.start > end:
                    yield name, end, block.start
                end = block.end
        finally:
            os.close(descriptor)
        if size > end:
            yield name, end, size


def list_segments(packed: int) -> dict[str, tuple[int, int]]:
    """Size and time of change of each segment."""
    found = {}
    with os.scandir(packed) as entries:
        for entry in entries:
            if SEGMENT_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found[entry.name] = status.st_size, status.st_mtime_ns
    return found
