"""The job table: one fixed-width record per job, in Redis strings of ``SEGMENT_JOBS`` records.

A slice's commit is one write into a string, a page of jobs is one read at any offset, and a column is
``numpy.frombuffer``. Segments keep each string far below
Redis's 512 MB and are allocated when first written, so a batch of ten million jobs is accepted at once.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.batch import JobState, Reason
from common.ledger import keys
from common.ledger.connection import Connection

SEGMENT_JOBS = 2**18

# name, numpy format, struct format. Times are seconds since the epoch and seconds; max_rss is in kB.
_FIELDS = (
    ("state", "u1", "B"),
    ("attempt", "u1", "B"),
    ("exit", "<i2", "h"),
    ("slot", "<u2", "H"),
    ("signal", "u1", "B"),
    ("reason", "u1", "B"),
    ("started", "<f8", "d"),
    ("elapsed", "<f4", "f"),
    ("cpu", "<f4", "f"),
    ("max_rss", "<u4", "I"),
)


def record_dtype(outputs: Sequence[str]) -> np.dtype[np.void]:
    """The records of a simulation that gives these numeric outputs."""
    return np.dtype([(name, kind) for name, kind, _ in _FIELDS] + [(f"out:{name}", "<f8") for name in outputs])


def record_packer(outputs: Sequence[str]) -> struct.Struct:
    """Packs one record; ten times faster than assigning to a NumPy record."""
    return struct.Struct("<" + "".join(kind for *_, kind in _FIELDS) + "d" * len(outputs))


def pieces(first: int, records: bytes | memoryview, size: int) -> Iterator[tuple[int, int, bytes | memoryview]]:
    """Cut the records of the jobs from ``first`` on at segment borders: (segment, byte offset, records)."""
    position, done, count = first - 1, 0, len(records) // size
    while done < count:
        segment, offset = divmod(position + done, SEGMENT_JOBS)
        take = min(count - done, SEGMENT_JOBS - offset)
        yield segment, offset * size, records[done * size : (done + take) * size]
        done += take


def read(connection: Connection, batch_id: int, first: int, count: int, dtype: np.dtype[np.void]) -> np.ndarray:
    """The records of jobs ``first`` … ``first + count - 1``; all zero, so PENDING, where nothing was written yet."""
    size, position, parts = dtype.itemsize, first - 1, []
    while count > 0:
        segment, offset = divmod(position, SEGMENT_JOBS)
        take = min(count, SEGMENT_JOBS - offset)
        key, start = keys.table(batch_id, segment), offset * size
        raw: bytes = connection.command("GETRANGE", key, start, start + take * size - 1)
        parts.append(raw.ljust(take * size, b"\0"))
        position, count = position + take, count - take
    return np.frombuffer(b"".join(parts), dtype=dtype)


@dataclass(frozen=True)
class Closed:
    """Jobs that ended without a commit, cancelled or given up: of one that was cut off its record has the attempt."""

    first: int
    count: int
    state: JobState
    reason: Reason


def closed(connection: Connection, batch_id: int, first: int = 1, count: int = 2**53) -> list[Closed]:
    """What was closed of a batch, in no order, disjoint; the intervals that meet ``count`` jobs from ``first`` on."""
    # There may be hundreds of thousands, so they are read as one text.
    rows = json.loads(b"[%s]" % b",".join(connection.command("LRANGE", keys.closed(batch_id), 0, -1)))
    return [
        Closed(int(low), int(size), JobState[state], Reason[reason or "NONE"])
        for low, size, state, reason in rows
        if low < first + count and low + size > first
    ]


def page(connection: Connection, batch_id: int, first: int, count: int, dtype: np.dtype[np.void]) -> np.ndarray:
    """As :func:`read`, with the states and reasons of jobs that ended without a commit."""
    records = read(connection, batch_id, first, count, dtype)
    intervals = closed(connection, batch_id, first, count)
    if intervals:
        records = records.copy()
        for interval in intervals:
            piece = records[max(0, interval.first - first) : max(0, interval.first - first + interval.count)]
            piece["state"], piece["reason"] = interval.state, interval.reason
    return records


def write(connection: Connection, batch_id: int, first: int, records: bytes, size: int) -> None:
    """Write records outside of a commit: only for a batch that is being rebuilt and not entered yet."""
    for segment, offset, piece in pieces(first, records, size):
        connection.command("SETRANGE", keys.table(batch_id, segment), offset, piece)
