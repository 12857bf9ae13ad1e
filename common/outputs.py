"""The outputs directory: where a batch's files lie, how they are written, and how older ones are kept.

A reader never sees half a file: it is written under another name in the batch's *staging* directory and renamed into
place. The staging directory is also a fence: it is removed when the batch ends or its files are moved away, and a
worker that was away and still believes in the old batch then cannot put anything beside the new one's files.
"""

import csv
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.batch import BatchSpec
from common.errors import Conflict, NotFound, StorageUnavailable

SPEC_NAME = "batch.json"
SUMMARY_NAME = "summary.json"
RESULTS_NAME = "results.csv"
# The errors of failed jobs, whole; there is none when no job failed.
ERRORS_NAME = "errors.txt"
# What people did to the batch since it was submitted.
CONTROL_NAME = "control.json"
# What an API serves of a batch beside its jobs' CSVs; written once the batch has ended.
RESULT_TYPES = {
    RESULTS_NAME: "text/csv",
    "results.parquet": "application/vnd.apache.parquet",
    "points.csv": "text/csv",
    ERRORS_NAME: "text/plain",
    SUMMARY_NAME: "application/json",
}
JOB_NAME = re.compile(r"job_([1-9][0-9]{0,8})\.csv")
# A directory with a longer number is somebody else's.
BATCH_NAME = re.compile(r"[1-9][0-9]{0,11}")
# Which number the files get that no batch.json claims, while they are moved.
_FOREIGN_ID = ".archiving"
# A directory that is written to while it is removed is gone after a few tries.
REMOVAL_TRIES = 1000
LOCK_POLL_SECONDS = 0.01
# What belongs to a start-up batch in outputs/ itself.
_OWN_FILES = re.compile(
    r"job_[0-9]+\.csv|results\.(csv|parquet)|points\.csv|errors\.txt|(summary|control)\.json|packed|logs"
)


def job_name(index: int) -> str:
    """The file name of a job's CSV."""
    return f"job_{index}.csv"


def directory(root: Path, spec: BatchSpec) -> Path:
    """Where the batch's files lie."""
    return root if spec.startup else root / str(spec.id)


def locate(root: Path, spec: BatchSpec) -> Path:
    """Where the batch's files lie now: those of an older start-up batch have been moved to ``root/<id>/``."""
    if spec.startup:
        owner = read_spec(root)
        return root if owner is not None and owner.id == spec.id else root / str(spec.id)
    return directory(root, spec)


def staging(root: Path, spec: BatchSpec) -> Path:
    """Where the batch's files are while they are written; there only while the batch runs."""
    return directory(root, spec) / f".staging-{spec.id}"


def prepare(root: Path, spec: BatchSpec) -> None:
    """Make the batch's directories and write its ``batch.json``, synced, before the batch is accepted.

    Raises :class:`StorageUnavailable`.
    """
    try:
        place = directory(root, spec)
        place.mkdir(parents=True, exist_ok=True)
        staging(root, spec).mkdir(exist_ok=True)
        write_synced(place / SPEC_NAME, spec.to_json().encode() + b"\n")
        if place != root:
            # The new directory's own name is an entry of its parent.
            _sync_directory(root)
    except OSError as error:
        raise StorageUnavailable(f"{root}: {error.strerror}: {error.filename}", field="OUTPUT_DIR") from error


def remove_staging(root: Path, spec: BatchSpec) -> None:
    """Close the batch's directory for writers; done already is fine. Raises OSError when it cannot be removed."""
    place = staging(root, spec)
    for _ in range(REMOVAL_TRIES):
        # A writer that was away may put a file in between its emptying and its removal.
        shutil.rmtree(place, ignore_errors=True)
        if not place.exists():
            return
    place.rmdir()


def discard(root: Path, spec: BatchSpec) -> None:
    """Remove the directory of a batch that was prepared and not accepted."""
    if not spec.startup:
        shutil.rmtree(directory(root, spec), ignore_errors=True)


def write_synced(path: Path, data: bytes) -> None:
    """Replace a file by another in one step that survives a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def publish(source: Path, target: Path) -> None:
    """Move a synced file into place, in one step that survives a power cut.

    Raises OSError, as when the directory that ``source`` was made in has been removed meanwhile.
    """
    source.replace(target)
    _sync_directory(target.parent)


def _sync_directory(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_spec(place: Path) -> BatchSpec | None:
    """The ``batch.json`` of a directory; None when there is none that can be read."""
    try:
        return BatchSpec.from_json((place / SPEC_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_control(place: Path) -> dict[str, Any]:
    """What was noted of a batch, as :meth:`common.notes.Notes.read` says; {} when there is nothing that can be read."""
    try:
        found = json.loads((place / CONTROL_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def outcome(root: Path, batch_id: int) -> str:
    """How an ended batch stands by its files, as ``outcome`` in endings.lua judges it: "ok" or "bad".

    That is "ok" when every job completed, but for those that its own stop rule made needless; "bad" without a summary.
    """
    for place in (root / str(batch_id), root):
        try:
            found = json.loads((place / SUMMARY_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get("batch") == batch_id:
            good = found.get("state") == "COMPLETED" or _only_needless(place, found)
            return "ok" if good else "bad"
    return "bad"


def _only_needless(place: Path, summary: dict[str, Any]) -> bool:
    """Whether all jobs of an ended batch that did not complete were ABORTED by its stop rule."""
    spec, counted = read_spec(place), summary.get("counters")
    if spec is None or not spec.until or not isinstance(counted, dict):
        return False
    if not counted.keys() <= {"COMPLETED", "ABORTED"}:
        return False
    if spec.max_fails is None and "max_fails" not in read_control(place):
        return True
    # What max_fails had ABORTED may be left of a batch whose failed jobs were run again: only its rows tell.
    try:
        with (place / "results.csv").open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            return all(row["state"] != "ABORTED" or row["reason"] == "StopRule" for row in rows)
    except (OSError, ValueError, KeyError, csv.Error):
        return False


def taken(root: Path, batch_id: int) -> bool:
    """Whether the directory knows of a batch with this number, or of a later start-up batch in ``root`` itself."""
    if (root / str(batch_id)).exists():
        return True
    owner = read_spec(root)
    return owner is not None and owner.id >= batch_id


def highest_id(root: Path) -> int:
    """The highest batch id that the directory knows of, so that a new batch never gets the number of an old one."""
    known = read_spec(root)
    names = [entry.name for entry in root.iterdir()] if root.is_dir() else []
    numbers = [int(name) for name in names if BATCH_NAME.fullmatch(name)]
    return max([known.id if known else 0, *numbers])


def archive_startup(root: Path) -> tuple[int, int] | None:
    """Move what an older start-up batch left in ``root`` to ``root/<its id>/``; returns (id, files), or None.

    Can be interrupted and called again: what says whose files they are goes last. Overwrites nothing. Raises
    :class:`StorageUnavailable`.
    """
    try:
        old = read_spec(root)
        if old:
            # First the fence, so that nobody adds to the files while they move.
            remove_staging(root, old)
        names = [entry.name for entry in root.iterdir() if _OWN_FILES.fullmatch(entry.name)]
        if not names and not (root / SPEC_NAME).exists():
            (root / _FOREIGN_ID).unlink(missing_ok=True)
            return None
        batch_id = old.id if old else _foreign_id(root)
        target = root / str(batch_id)
        target.mkdir(exist_ok=True)
        for name in [*names, *([SPEC_NAME] if (root / SPEC_NAME).exists() else [])]:
            (root / name).rename(_unused(target / name))
        (root / _FOREIGN_ID).unlink(missing_ok=True)
        return batch_id, len(names)
    except OSError as error:
        raise StorageUnavailable(f"{root}: {error.strerror}: {error.filename}", field="OUTPUT_DIR") from error


def _foreign_id(root: Path) -> int:
    """The number for files that no ``batch.json`` claims; noted, so that all of them get the same one."""
    note = root / _FOREIGN_ID
    if not note.exists():
        write_synced(note, str(highest_id(root) + 1).encode())
    return int(note.read_text(encoding="ascii"))


def _unused(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        free = path.with_name(f"{path.name}.{number}")
        number += 1
    return free


def probe(root: Path) -> None:
    """Write, read and remove a small file in ``root``. Raises :class:`StorageUnavailable` with the reason."""
    path = root / f".probe-{os.getpid()}"
    try:
        try:
            with path.open("wb") as file:
                file.write(b"probe")
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageUnavailable(f"{root} cannot be written: {error.strerror}", field="OUTPUT_DIR") from error


def free_bytes(root: Path) -> int:
    """Free space on the disk of ``root``, as an unprivileged process sees it."""
    return shutil.disk_usage(root).free


def find_file(place: Path, name: str) -> Path:
    """The path of a job's CSV, or of one of ``RESULT_TYPES``, in a batch's directory.

    ``name`` comes from a request: only these names are looked for, and links are not followed. Raises
    :class:`NotFound`.
    """
    path = place / name
    known = name in RESULT_TYPES or JOB_NAME.fullmatch(name)
    try:
        servable = bool(known) and not path.is_symlink() and path.is_file()
    except OSError:
        servable = False
    if not servable:
        there = ", ".join(RESULT_TYPES)
        raise NotFound(
            f"There is no file {name!r}; a batch has job_<index>.csv and, once it has ended, {there}.", field="name"
        )
    return path


@contextmanager
def exclusive(root: Path, name: str = ".submit.lock", *, wait_seconds: float = 0.0) -> Iterator[int]:
    """Hold a lock file of the outputs directory; gives its descriptor.

    Raises :class:`Conflict` when another process on this machine holds it for longer than ``wait_seconds``. The kernel
    drops it when its holder dies.
    """
    try:
        descriptor = os.open(root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageUnavailable(f"{root} cannot be written: {error.strerror}", field="OUTPUT_DIR") from error
    try:
        deadline = time.monotonic() + wait_seconds
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                if wait_seconds:
                    raise Conflict(
                        f"Somebody else has been changing what is in {root} for {wait_seconds:g} s; try again."
                    )
                raise Conflict(
                    f"{root} is in use by another run of hpc-batch-sim; end it, or choose another OUTPUT_DIR."
                )
            # flock(2) can wait, but not for so long and no longer.
            time.sleep(LOCK_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
