"""The slot board: a small shared file in which a worker's processes see each other.

The main process writes one flag (drain), each slot its process id and the token of the range it holds. So the
main process knows what to renew, and what a dead slot was holding, without asking Redis or Celery.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_ENTRY = struct.Struct("<IB59s")
_HEADER_BYTES = _ENTRY.size


@dataclass(frozen=True)
class SlotEntry:
    """What a slot says: its process, and the range that it holds or ""."""

    index: int
    pid: int
    token: str


class Board:
    """A board of ``slots`` entries in the file ``path``."""

    def __init__(self, path: Path, slots: int) -> None:
        self.path = path
        self.slots = slots
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _HEADER_BYTES + slots * _ENTRY.size)

    @classmethod
    def create(cls, path: Path, slots: int) -> "Board":
        """Make an empty board."""
        path.write_bytes(bytes(_HEADER_BYTES + slots * _ENTRY.size))
        return cls(path, slots)

    @property
    def draining(self) -> bool:
        """Whether the slots shall stop at the next job boundary."""
        return self._map[0] != 0

    def drain(self) -> None:
        """Ask the slots to stop at the next job boundary."""
        self._map[0] = 1

    def write(self, index: int, pid: int, token: str = "") -> None:
        """Say what slot ``index`` does. One writer per entry; the length is written with the text, in one copy."""
        raw = token.encode()
        _ENTRY.pack_into(self._map, self._offset(index), pid, len(raw), raw)

    def read(self, index: int) -> SlotEntry:
        """What slot ``index`` said last."""
        pid, length, raw = _ENTRY.unpack_from(self._map, self._offset(index))
        return SlotEntry(index, pid, raw[:length].decode(errors="replace"))

    def entries(self) -> list[SlotEntry]:
        """What all slots said last."""
        return [self.read(index) for index in range(self.slots)]

    def close(self) -> None:
        """Unmap the board; the file stays."""
        self._map.close()

    def _offset(self, index: int) -> int:
        return _HEADER_BYTES + index % self.slots * _ENTRY.size
