"""How much memory running programs take, from /proc, 0 where there is none; and how much they may."""

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from typing import NamedTuple

_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
# What we may need ourselves to start a program.
_SPAWN_KB = 16 * 1024


class OwnMemory(NamedTuple):
    """Of this process: what is resident, and what RLIMIT_DATA counts (with the stack), kB."""

    resident: int
    data: int


def own_kb() -> OwnMemory:
    """How much memory this process takes; some microseconds."""
    fields = _read("/proc/self/statm").split()
    return OwnMemory(int(fields[1]) * _PAGE_KB, int(fields[5]) * _PAGE_KB) if fields else OwnMemory(0, 0)


def status_kb(pid: int | str, field: str) -> int:
    """A size of a process, such as ``VmRSS``, kB; 0 when it has ended."""
    raw = _read(f"/proc/{pid}/status")
    at = raw.find(f"\n{field}:".encode())
    return int(raw[at:].split(None, 2)[1]) if at >= 0 else 0


def group_kb(group: int) -> int:
    """What the processes of a group have resident together, kB; pages that they share count for each."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - only the names are needed, of hundreds
    except OSError:
        return 0
    pages = 0
    for name in names:
        if name.isdecimal():
            # The command's name stands in parentheses and may hold anything.
            fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if len(fields) > 21 and int(fields[2]) == group:
                pages += int(fields[21])
    return pages * _PAGE_KB


@contextlib.contextmanager
def limited(limit_kb: int) -> Iterator[None]:
    """Be limited ourselves, so that what is started is from its first moment, with whatever it starts.

    Not below what we have, though: of a smaller limit a program has some microseconds before it is set.
    """
    if not limit_kb or not sys.platform.startswith("linux"):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    least_kb = status_kb("self", "VmData") + _SPAWN_KB
    resource.setrlimit(resource.RLIMIT_DATA, (_at_most(max(limit_kb, least_kb), before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def limit(pid: int, limit_kb: int) -> None:
    """Let a program allocate so much and no more. Linux only: elsewhere nobody can say that of another process."""
    if limit_kb and sys.platform.startswith("linux"):
        most = _at_most(limit_kb, resource.getrlimit(resource.RLIMIT_DATA)[1])
        # It may have ended, or run as somebody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))


def _at_most(limit_kb: int, hard: int) -> int:
    return limit_kb * 1024 if hard < 0 else min(limit_kb * 1024, hard)


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 8192)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
