"""A batch's CSVs, whichever way they are stored: a file for each job, or packed into segments."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from common.batch import BatchSpec
from common.errors import InvalidInput
from common.job_writer import JobWriter
from common.outputs import JOB_NAME, job_name
from common.packed_index import PackedReader
from common.packed_writer import PackedWriter

FILES, PACKED = "files", "packed"


class Writer(Protocol):
    """Writes the CSVs of one batch for one slot. Methods raise OSError; ENOENT means that the batch is closed."""

    def write(self, index: int, data: bytes) -> None:
        """Write the CSV of job ``index``; it may become visible only with :meth:`sync`."""

    def sync(self) -> None:
        """Make all that was written visible, and durable if the durability asks for it."""

    def refresh(self) -> None:
        """Find what a forked child wrote and synced; nothing may be waiting for :meth:`sync` here."""

    def close(self) -> None:
        """Close the batch's directories; what was not synced may be lost."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_exc: object) -> None: ...


class Store(Protocol):
    """The CSVs of one batch. Methods raise OSError when the volume cannot be read."""

    def read(self, index: int) -> bytes | None:
        """The CSV of job ``index``; None when there is none."""

    def present(self, jobs: int) -> np.ndarray:
        """For each of the jobs 1 … ``jobs`` whether there is a CSV."""

    def damage(self) -> list[str]:
        """Which parts of it hold no CSVs although they should, in sentences."""


class FileStore:
    """A file for each job; links are not followed. ``place`` is the batch's directory, which need not exist."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def read(self, index: int) -> bytes | None:
        """The CSV of job ``index``; None when there is none. Raises OSError."""
        path = self._place / job_name(index)
        if path.is_symlink() or not path.is_file():
            return None
        try:
            return path.read_bytes()
        except FileNotFoundError:
            # Moved away since we looked.
            return None

    def present(self, jobs: int) -> np.ndarray:
        """For each of the jobs 1 … ``jobs`` whether there is a file, by its name. Raises OSError."""
        found = np.zeros(jobs, dtype=bool)
        try:
            with os.scandir(self._place) as entries:
                for entry in entries:
                    match = JOB_NAME.fullmatch(entry.name)
                    if match and int(match[1]) <= jobs:
                        found[int(match[1]) - 1] = True
        except FileNotFoundError:
            pass
        return found

    def damage(self) -> list[str]:
        """A file holds nothing but its own CSV."""
        return []


def writer(root: Path, spec: BatchSpec, slot: str, durability: str) -> Writer:
    """What writes a slot's CSVs in the batch's output mode.

    Raises OSError when the batch's directories are not there, :class:`InvalidInput` for a mode that is not known.
    """
    if _mode(spec) == PACKED:
        return PackedWriter(root, spec, slot, durability)
    return JobWriter(root, spec, slot, durability)


def open_store(place: Path, spec: BatchSpec, *, checked: bool = False) -> Store:
    """The CSVs in a batch's directory. Worth keeping: a packed one remembers where each job lies.

    ``checked`` is for who decides whether a job is done: packed ones whose checksum is wrong are not there.

    Raises :class:`InvalidInput` for a mode that is not known.
    """
    return PackedReader(place, spec.jobs, checked=checked) if _mode(spec) == PACKED else FileStore(place)


def differs(place: Path, spec: BatchSpec, index: int, data: bytes) -> bool:
    """Whether an earlier attempt of job ``index`` left a whole CSV with other bytes; packed ones are not looked at.

    Raises OSError.
    """
    before = FileStore(place).read(index) if _mode(spec) == FILES else None
    # What a power cut tore says nothing about the job.
    return before is not None and before != data and parse(before) is not None


def parse(data: bytes) -> dict[str, Any] | None:
    """The last row of a CSV, with numbers and lists read as such; None when it was cut short or cannot be read.

    Of a job with several rows the last one is the state that it ended in, and has its outputs.
    """
    # A CSV that was cut short may still look like a row: 552,5 of 552,55.2.
    if not data.endswith(b"\n"):
        return None
    try:
        *_, row = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        return {name: _cell(text) for name, text in row.items()}
    except (ValueError, TypeError, RecursionError, csv.Error):
        return None


def _cell(text: str | None) -> Any:
    """A number, truth value or list as such, anything else as text; as Python's csv writes them: ``nan``, ``True``."""
    if text is None:
        raise ValueError("a row is shorter than the header")
    try:
        return json.loads(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return {"True": True, "False": False}.get(text, text)


def export(place: Path, spec: BatchSpec, target: Path) -> int:
    """Write every job's CSV as ``job_<i>.csv`` into a directory, one after the other; returns how many.

    Raises :class:`InvalidInput` when ``target`` is not empty or no directory, OSError when it cannot be written.
    """
    store = open_store(place, spec)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInput(f"{target} is not a directory.", field="target") from error
    if any(target.iterdir()):
        raise InvalidInput(f"{target} is not empty; name a directory that is, or a new one.", field="target")
    written = 0
    for position in np.flatnonzero(store.present(spec.jobs)):
        index = int(position) + 1
        data = store.read(index)
        if data is not None:
            (target / job_name(index)).write_bytes(data)
            written += 1
    return written


def _mode(spec: BatchSpec) -> str:
    mode = spec.output_mode
    if mode not in (FILES, PACKED):
        raise InvalidInput(f"output_mode is {mode!r}; it must be {FILES!r} or {PACKED!r}", field="output_mode")
    return mode
