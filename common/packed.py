"""The ``packed`` output mode: no file per job; each slot appends its slices to a *segment*, out of which CSVs are cut.

Segments lie in ``packed/`` of the batch's directory, ``segment-<slot>.bin`` for each slot, ``segment-<slot>.<n>.bin``
when another process still holds that one. A segment is a sequence of blocks and nothing else. A block, little-endian:

====================  ========================================================================
``4s``                magic ``BSPK``
``u4``                version of the format, 1
``u4``                count of jobs, at least 1
``u8``                bytes of the payload
``u4``                CRC-32 of the fields above and of all that follows
count × ``u4``        index of each job; a slice has gaps where jobs failed
count × ``u4``        bytes of each job's CSV
payload               the CSVs, one after the other
====================  ========================================================================

A block that is incomplete or whose CRC is wrong is none; a reader goes on with the next whole one. A job may be in
several blocks, when it ran again after a lost lease: they hold the same bytes, the last one read counts, the others
waste space.

A whole block is never changed or removed, so what a reader once found stays where it is. Only the incomplete end of a
segment is cut off: by its writer after a failed write, and by the next one that opens it. A segment that is damaged
before its end stays as it is, and its slot goes on in another.
"""

import fcntl
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from common.settings import MAX_JOBS

PACKED_NAME = "packed"
SEGMENT_NAME = re.compile(r"segment-[A-Za-z0-9_.-]+\.bin")
READ_BYTES = 2**20

_MAGIC, _VERSION = b"BSPK", 1
_FIELDS = struct.Struct("<4sIIQ")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _FIELDS.size + _CRC.size
# What a job takes besides its CSV.
JOB_BYTES = 8


class Block(NamedTuple):
    """Where a valid block and its jobs lie in a segment; offsets in bytes."""

    start: int
    indices: np.ndarray
    lengths: np.ndarray
    payload: int
    end: int


def blocks(descriptor: int, start: int, size: int) -> Iterator[Block]:
    """The valid blocks of a segment of ``size`` bytes from offset ``start`` on, also those behind a bad one.

    Every CRC is checked; memory does not grow with the payloads. Raises OSError.
    """
    while (block := _read_block(descriptor, start, size) or _next_block(descriptor, start, size)) is not None:
        yield block
        start = block.end


def _next_block(descriptor: int, start: int, size: int) -> Block | None:
    """The first valid block from ``start`` on, wherever it begins."""
    while len(data := os.pread(descriptor, max(0, min(READ_BYTES, size - start)), start)) >= len(_MAGIC):
        found = data.find(_MAGIC)
        while found >= 0:
            block = _read_block(descriptor, start + found, size)
            if block is not None:
                return block
            found = data.find(_MAGIC, found + 1)
        # The next one's magic may have begun here.
        start += len(data) - len(_MAGIC) + 1
    return None


def _read_block(descriptor: int, start: int, size: int) -> Block | None:
    header = os.pread(descriptor, _HEADER_BYTES, start)
    if len(header) < _HEADER_BYTES:
        return None
    magic, version, count, payload = _FIELDS.unpack_from(header)
    arrays = start + _HEADER_BYTES
    end = arrays + JOB_BYTES * count + payload
    # Only what is there is read, however large a damaged header says that it is.
    if magic != _MAGIC or version != _VERSION or not count or end > size:
        return None
    if (
        checksum(descriptor, arrays, end, zlib.crc32(header[: _FIELDS.size]))
        != _CRC.unpack_from(header, _FIELDS.size)[0]
    ):
        return None
    numbers = np.frombuffer(os.pread(descriptor, JOB_BYTES * count, arrays), dtype="<u4")
    indices, lengths = numbers[:count], numbers[count:]
    if indices.min() < 1 or indices.max() > MAX_JOBS or int(lengths.sum(dtype=np.uint64)) != payload:
        return None
    return Block(start, indices, lengths, arrays + JOB_BYTES * count, end)


def checksum(descriptor: int, start: int, end: int, crc: int = 0) -> int | None:
    """CRC-32 of a part of a file, continuing ``crc``; None when the file ends before ``end``. Raises OSError."""
    while start < end:
        data = os.pread(descriptor, min(READ_BYTES, end - start), start)
        if not data:
            return None
        crc = zlib.crc32(data, crc)
        start += len(data)
    return crc


def encode(indices: Sequence[int], parts: Sequence[bytes]) -> bytes:
    """One block with these jobs and their CSVs."""
    numbers = np.empty(2 * len(parts), dtype="<u4")
    numbers[: len(parts)] = indices
    numbers[len(parts) :] = [len(part) for part in parts]
    body = b"".join([numbers.tobytes(), *parts])
    fields = _FIELDS.pack(_MAGIC, _VERSION, len(parts), len(body) - numbers.nbytes)
    return b"".join([fields, _CRC.pack(zlib.crc32(body, zlib.crc32(fields))), body])


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write ``data`` at an offset, in as many steps as the system takes. Raises OSError."""
    rest = memoryview(data)
    while rest:
        # A nearly full disk takes a part of it; the next step says why.
        taken = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[taken:], offset + taken


def lock_file(name: str, place: int) -> int | None:
    """Open a file of the directory ``place`` (a descriptor), made if missing, for this process alone.

    Gives its descriptor; None when another holds it. The kernel drops the lock when its holder dies. Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(name, flags, 0o644, dir_fd=place)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have renamed it between our open and our lock.
        if os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=place, follow_symlinks=False)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
