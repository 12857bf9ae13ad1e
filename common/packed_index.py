"""Cut jobs' CSVs out of the segments of a ``packed`` batch; :mod:`common.packed` says what segments are.

Where each job lies is found by scanning the blocks once, and from then on only what is new. When the batch is finished
the finding is written down as ``packed/index.bin``, little-endian:

====================  ========================================================================
``4s``                magic ``BSPI``
``u4``                version of the format, 1
``u4``                jobs
``u4``                bytes of the segments' list
``u4``                CRC-32 of the fields above and of all that follows
list                  JSON: ``[[name, bytes that were scanned], …]``
jobs × 14 bytes       ``u2`` number of the segment in the list, from 1, or 0: there is none;
                      ``u8`` offset and ``u4`` bytes of the CSV
====================  ========================================================================

An index need not be complete: what a segment holds beyond it, and new segments, are scanned, unless the batch is
finished: then a slot wrote it that could not commit it any more. A missing or damaged index costs a full scan, nothing
else.
"""

import json
import os
import struct
import threading
import zlib
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import numpy as np

from common.errors import Conflict
from common.outputs import SUMMARY_NAME
from common.packed import PACKED_NAME, SEGMENT_NAME, checksum, lock_file, write_all
from common.packed_catalog import LOCATION, READ_ONLY, Catalog, Segment, damaged, list_segments

INDEX_NAME = "index.bin"
_TEMPORARY = ".index.tmp"
_MAGIC, _VERSION = b"BSPI", 1
_FIELDS = struct.Struct("<4sIII")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _FIELDS.size + _CRC.size


class PackedReader:
    """Reads the CSVs of a packed batch, also while it is written; may be used by several threads.

    ``place`` is the batch's directory, which need not exist; ``jobs`` is a hint that saves copying. Memory is 14 bytes
    a job. When the directory's ``packed/`` becomes another one, or its index does, or the batch is finished or runs
    again, nothing of the old is remembered.

    The index is believed, unless ``checked``: then all is scanned, and what is in a damaged block is not there.
    """

    def __init__(self, place: Path, jobs: int = 0, *, checked: bool = False) -> None:
        self._path = place / PACKED_NAME
        self._summary = place / SUMMARY_NAME
        self._jobs = jobs
        self._checked = checked
        self._lock = threading.Lock()
        self._catalog = Catalog(0)
        self._identity: tuple[int, ...] = ()
        self._finished = False

    def read(self, index: int) -> bytes | None:
        """The CSV of job ``index``; None when there is none. Raises OSError when the volume cannot be read."""
        with self._lock:
            packed = _open_packed(self._path)
            if packed is None:
                return None
            try:
                self._recognise(packed)
                data = self._catalog.cut(packed, index)
                if data is None:
                    self._refresh(packed)
                    data = self._catalog.cut(packed, index)
                return data
            finally:
                os.close(packed)

    def present(self, jobs: int) -> np.ndarray:
        """For each of the jobs 1 … ``jobs`` whether there is a CSV. Raises OSError."""
        found = np.zeros(jobs, dtype=bool)
        with self._lock:
            packed = _open_packed(self._path)
            if packed is None:
                return found
            try:
                self._recognise(packed)
                self._refresh(packed)
            finally:
                os.close(packed)
            known = self._catalog.table["segment"][:jobs]
            found[: len(known)] = known > 0
        return found

    def damage(self) -> list[str]:
        """Which parts of the segments are no whole block, in sentences; all is scanned. Raises OSError."""
        packed = _open_packed(self._path)
        if packed is None:
            return []
        try:
            return [
                f"The bytes {start} to {end - 1} of {self._path / name} are damaged, or were not written to their end."
                for name, start, end in damaged(packed)
            ]
        finally:
            os.close(packed)

    def _recognise(self, packed: int) -> None:
        """Start anew when another batch has this directory now, or the batch has ended.

        The index of its end leaves out what was packed and never committed, and the scan had found.
        """
        self._finished = self._summary.exists()
        identity = (self._finished, *_identity(packed))
        if self._identity != identity:
            self._identity = identity
            self._catalog = self._begin(packed)

    def _refresh(self, packed: int) -> None:
        if not self._catalog.refresh(packed):
            self._catalog = self._begin(packed)
            self._catalog.refresh(packed)

    def _begin(self, packed: int) -> Catalog:
        index = None if self._checked else _load(packed)
        if index is None:
            return Catalog(self._jobs)
        # Its summary is set aside before the first job of a batch that has ended runs again.
        index.complete = self._finished
        return index


def write_index(
    place: Path, jobs: int, keep: np.ndarray | None = None, *, check: Callable[[], None] = lambda: None
) -> None:
    """Scan all blocks of a batch and write ``packed/index.bin``, synced, in one step; nothing without a packed/.

    With ``keep``, a bool per job, the others' CSVs are not found any more: they were packed and never committed.

    ``check`` is called before the index gets its name, and raises when it must not.

    Takes 14 bytes a job of memory. Raises OSError, and :class:`Conflict` when another process is writing it.
    """
    packed = _open_packed(place / PACKED_NAME)
    if packed is None:
        return
    try:
        # All through this one descriptor: the index lies beside the segments it was made of, wherever they are moved.
        catalog = Catalog(jobs)
        catalog.refresh(packed)
        if keep is not None:
            catalog.table[: len(keep)][~keep] = np.zeros((), dtype=LOCATION)
        descriptor = lock_file(_TEMPORARY, packed)
        if descriptor is None:
            raise Conflict(f"{place / PACKED_NAME / INDEX_NAME} is being written by another process.")
        try:
            _write(descriptor, catalog, jobs)
            check()
            os.rename(_TEMPORARY, INDEX_NAME, src_dir_fd=packed, dst_dir_fd=packed)
        finally:
            os.close(descriptor)
        os.fsync(packed)
    finally:
        os.close(packed)


def indexed_end(packed: int, name: str) -> int:
    """How much of a segment of the directory ``packed`` (a descriptor) the index tells of; 0 without an index."""
    index = _open_index(packed)
    return next((segment.end for segment in index.segments if segment.name == name), 0) if index else 0


def _open_packed(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _identity(packed: int) -> tuple[int, ...]:
    """Which directory this is, and which index it has."""
    status = os.fstat(packed)
    try:
        index = os.stat(INDEX_NAME, dir_fd=packed, follow_symlinks=False)
    except FileNotFoundError:
        return status.st_dev, status.st_ino
    # The number of an index that was replaced may be the next one's.
    return status.st_dev, status.st_ino, index.st_ino, index.st_mtime_ns


def _write(descriptor: int, catalog: Catalog, jobs: int) -> None:
    names = json.dumps([[segment.name, segment.end] for segment in catalog.segments]).encode()
    table = catalog.table[:jobs].view(np.uint8).data
    fields = _FIELDS.pack(_MAGIC, _VERSION, jobs, len(names))
    crc = zlib.crc32(table, zlib.crc32(names, zlib.crc32(fields)))
    os.ftruncate(descriptor, 0)
    write_all(descriptor, b"".join([fields, _CRC.pack(crc), names]), 0)
    write_all(descriptor, table, _HEADER_BYTES + len(names))
    os.fsync(descriptor)


def _load(packed: int) -> Catalog | None:
    """What the index says; None when there is none, or it is damaged, or speaks of what is not there."""
    catalog, found = _open_index(packed), list_segments(packed)
    there = catalog and all(found.get(segment.name, (-1,))[0] >= segment.end for segment in catalog.segments)
    return catalog if there else None


def _open_index(packed: int) -> Catalog | None:
    try:
        descriptor = os.open(INDEX_NAME, READ_ONLY, dir_fd=packed)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        try:
            return _parse(file)
        except (OSError, ValueError, TypeError):
            return None


def _parse(file: FileIO) -> Catalog:
    descriptor = file.fileno()
    header = os.pread(descriptor, _HEADER_BYTES, 0)
    if len(header) < _HEADER_BYTES:
        raise ValueError("no header")
    magic, version, jobs, listed = _FIELDS.unpack_from(header)
    start = _HEADER_BYTES + listed
    size = start + jobs * LOCATION.itemsize
    if magic != _MAGIC or version != _VERSION or size != os.fstat(descriptor).st_size:
        raise ValueError("no index")
    crc = checksum(descriptor, _HEADER_BYTES, size, zlib.crc32(header[: _FIELDS.size]))
    if crc != _CRC.unpack_from(header, _FIELDS.size)[0]:
        raise ValueError("damaged")
    catalog = Catalog(0)
    for name, end in json.loads(os.pread(descriptor, listed, _HEADER_BYTES)):
        if not SEGMENT_NAME.fullmatch(name):
            raise ValueError(name)
        catalog.segments.append(Segment(name, end, end))
    if jobs:
        # Copy on write: blocks that are found later are entered into this process's copy.
        catalog.table = np.memmap(file, LOCATION, "c", start, (jobs,))
    return catalog
