"""A worker whose clocks the test moves: ``CHAOS_CLOCK=file python -m tests.chaos.moved_clock --slots 2``.

The file holds two numbers that are added to what Python's ``time`` says in this worker and in its slots: to the wall
clock, and to the clock that goes on while a machine sleeps. Redis, whose clock judges leases, keeps its own.
"""

import mmap
import os
import runpy
import struct
import time
from pathlib import Path

_OFFSETS = struct.Struct("dd")


class MovedClock:
    """The file: made by the test, read by the worker at each look at a clock."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        if make:
            path.write_bytes(_OFFSETS.pack(0.0, 0.0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _OFFSETS.size)

    def move(self, *, wall: float = 0.0, boot: float = 0.0) -> None:
        """Move the clocks by so many seconds from where they are."""
        _OFFSETS.pack_into(self._map, 0, self.wall + wall, self.boot + boot)

    @property
    def wall(self) -> float:
        """By how much the wall clock is off."""
        return float(_OFFSETS.unpack_from(self._map)[0])

    @property
    def boot(self) -> float:
        """By how much the clock that counts sleep is off."""
        return float(_OFFSETS.unpack_from(self._map)[1])


def install(clock: MovedClock) -> None:
    """Let ``time`` of this process and its children add what the file says."""
    wall, wall_ns, any_clock = time.time, time.time_ns, time.clock_gettime
    time.time = lambda: wall() + clock.wall
    time.time_ns = lambda: wall_ns() + int(clock.wall * 1e9)
    offsets = {time.CLOCK_REALTIME: lambda: clock.wall, getattr(time, "CLOCK_BOOTTIME", -1): lambda: clock.boot}
    time.clock_gettime = lambda number: any_clock(number) + offsets.get(number, float)()


if __name__ == "__main__":
    install(MovedClock(Path(os.environ["CHAOS_CLOCK"])))
    runpy.run_module("services.worker", run_name="__main__", alter_sys=True)
