"""Counts executions of jobs: each that ends renames the job's file into place, and inotify sees it."""

import ctypes
import os
import select
import struct
import sys
import threading
from collections import Counter
from pathlib import Path

_MOVED_TO, _CREATE, _OVERFLOW = 0x80, 0x100, 0x4000
_EVENT = struct.Struct("iIII")
_BUFFER_BYTES = 2**20

available = sys.platform == "linux"


class Executions:
    """Watches the batches' directories under ``root`` from when they are made, in a thread of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._checked(self._libc.inotify_init1(os.O_CLOEXEC))
        self._end_read, self._end_write = os.pipe()
        self._names: dict[int, str] = {}
        self._counts: Counter[str] = Counter()
        # False once the kernel dropped events, or a job ended before its directory was watched: then it is "at least".
        self.exact = True
        self._watch_root = self._watch(root, _CREATE)
        self._thread = threading.Thread(target=self._read, name="executions", daemon=True)
        self._thread.start()

    def of(self, batch: int) -> int:
        """Executions of the batch's jobs that ended with a file, so far."""
        return self._counts[str(batch)]

    def close(self) -> None:
        """Stop watching."""
        os.write(self._end_write, b"x")
        self._thread.join()
        for descriptor in (self._inotify, self._end_read, self._end_write):
            os.close(descriptor)

    def _read(self) -> None:
        while self._end_read not in select.select([self._inotify, self._end_read], [], [])[0]:
            data = os.read(self._inotify, _BUFFER_BYTES)
            position = 0
            while position < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size
                name = data[position : position + length]
                position += length
                self._count(watch, mask, name)

    def _count(self, watch: int, mask: int, name: bytes) -> None:
        if mask & _OVERFLOW:
            self.exact = False
        elif watch == self._watch_root:
            self._follow(name.rstrip(b"\0").decode())
        elif name.startswith(b"job_"):
            self._counts[self._names[watch]] += 1

    def _follow(self, name: str) -> None:
        place = self._root / name
        if not (name.isdecimal() and place.is_dir()):
            return
        self._names[self._watch(place, _MOVED_TO)] = name
        if any(place.glob("job_*.csv")):
            self.exact = False

    def _watch(self, place: Path, mask: int) -> int:
        return self._checked(self._libc.inotify_add_watch(self._inotify, os.fsencode(place), mask))

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
