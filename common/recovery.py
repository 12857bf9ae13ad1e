"""Rebuild batches from what lies on the volume, when Redis was emptied or a run was interrupted.

``batch.json`` says what the batch is, the CSV files which of its jobs are done. What is there is kept, only what is
missing runs again; the same seed gives it the same bytes as if nothing had happened.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import outputs, queue, results
from common.batch import BatchSpec, JobState
from common.errors import BrokerUnavailable, Conflict, StorageUnavailable
from common.ledger import Connection, batches, rebuilds, table
from common.ledger.table import record_dtype
from common.notes import united
from common.runs import bounds
from common.statistics import Moments, collect

log = structlog.get_logger()

# Jobs whose files are read at a time.
CHUNK_JOBS = 2**16
# Short runs of finished jobs between gaps are run again rather than kept as thousands of tiny ranges.
MOST_RANGES = 4096
# What control.json may have of what people changed.
ADJUSTED = ("held", "throttle", "priority", "max_fails")


def is_needed(connection: Connection) -> bool:
    """Whether :func:`recover` has something to do."""
    return not batches.is_marked(connection) or bool(rebuilds.due(connection))


def recover(connection: Connection, app: Celery, root: Path) -> int:
    """If Redis is new or was emptied, rebuild the batches that the volume knows of; returns how many.

    That is every batch without a ``summary.json``: the start-up batch that owns ``root``, and those in directories of
    their own; not older start-up batches, which were ended on purpose. One that cannot be rebuilt is logged, with its
    directory, keeps no other from it, and is tried again later. Called by all; a lock lets one do it.

    Raises :class:`BrokerUnavailable`, when the others were rebuilt if Redis still answers; the next call goes on.
    """
    if not is_needed(connection):
        return 0
    try:
        with outputs.exclusive(root):
            if not batches.is_marked(connection):
                rebuilt = _rebuild_all(connection, app, root, list(_places(root)), again=False)
                batches.mark(connection)
                return rebuilt
            names = rebuilds.due(connection)
            # However this try ends: the next one is not right behind it.
            rebuilds.pause(connection)
            return _rebuild_all(connection, app, root, [root / name for name in names], again=True)
    except (Conflict, StorageUnavailable):
        # Another does it, or the volume is away: the next call sees.
        return 0


def _rebuild_all(connection: Connection, app: Celery, root: Path, places: Sequence[Path], *, again: bool) -> int:
    """Rebuild what can be; raises what says nothing of a batch but of Redis or the volume, and is to be tried again."""
    rebuilt, refused = 0, None
    for place in places:
        name = str(place.relative_to(root))
        try:
            spec = _unfinished_in(root, place)
            if spec is not None:
                rebuild(connection, app, place, spec)
                rebuilt += 1
            rebuilds.forget(connection, name)
        except BrokerUnavailable as error:
            # Raises another one when Redis is away: then it is nobody's turn.
            batches.is_marked(connection)
            refused = error
        except Exception as error:
            # Is it the whole volume, StorageUnavailable comes of this, and the batch is as good as any other.
            outputs.probe(root)
            seconds = rebuilds.note(connection, name, again=again)
            log.exception("batch.not_rebuilt", place=str(place), error=str(error), again_in_seconds=seconds)
    if refused is not None:
        raise refused
    return rebuilt


def is_to_be_rebuilt(connection: Connection, root: Path, *, key: str = "", batch_id: int = 0) -> bool:
    """Whether an unfinished batch of this idempotency key, or number, is on the volume and not in the ledger yet.

    To be asked only by who has found Redis without its mark: else it may be any directory. Raises
    :class:`StorageUnavailable`.
    """
    found = (spec for _, spec in _unfinished(root) if spec.id == batch_id or (key and spec.key == key))
    return any(not batches.exists(connection, spec.id) for spec in found)


def rebuild(connection: Connection, app: Celery, place: Path, spec: BatchSpec) -> int:
    """Enter a batch from the files in ``place``; returns how many of its jobs were kept. A known one stays as it is.

    Raises ``ValueError`` when its ``control.json`` is damaged: what it said must not be forgotten without a word.
    """
    if batches.exists(connection, spec.id):
        return 0
    noted = _noted(place)
    done = _read_back(connection, place, spec)
    for first, count in noted["closed"]:
        # Written, and not committed when they were cancelled.
        done[first - 1 : first - 1 + count] = False
    ranges = gaps(done)
    # A few finished jobs between gaps are joined with them and run again.
    for first, count in ranges:
        done[first - 1 : first - 1 + count] = False
    batches.set_statistics(connection, spec.id, _keep_only(connection, spec, done))
    outputs.prepare(_root(place, spec), spec)
    completed = int(done.sum())
    root = _root(place, spec)
    _, offered = batches.submit(
        connection,
        _as_changed(spec, noted),
        idempotency_key=spec.key,
        key_seconds=0 if spec.startup else batches.IDEMPOTENCY_SECONDS,
        completed=completed,
        ranges=ranges,
        cancelled=united([*noted["cancelled"], *noted["closed"]]),
        outcomes={
            on: outputs.outcome(root, on)
            for _, on in spec.dependency
            if not batches.exists(connection, on) and not _is_awaited(root, on)
        },
        rebuilt=True,
    )
    batches.raise_last_id(connection, spec.id)
    log.warning("batch.rebuilt", batch=spec.id, kept=completed, missing=spec.jobs - completed)
    try:
        queue.publish(app, offered)
    except OperationalError as error:
        # It is in the ledger: the housekeeper publishes what is owed.
        log.warning("publish.failed", batch=spec.id, error=str(error))
    return completed


def gaps(done: np.ndarray) -> list[tuple[int, int]]:
    """The runs of jobs that are not done, as ``(first, count)``; at most ``MOST_RANGES``, the closest ones joined."""
    starts, ends = bounds(~done)
    if len(starts) > MOST_RANGES:
        between = starts[1:] - ends[:-1]
        cut = np.sort(np.argpartition(between, -(MOST_RANGES - 1))[-(MOST_RANGES - 1) :])
        starts, ends = np.concatenate((starts[:1], starts[cut + 1])), np.concatenate((ends[cut], ends[-1:]))
    return [(int(start) + 1, int(end - start)) for start, end in zip(starts, ends, strict=True)]


def _unfinished(root: Path) -> Iterator[tuple[Path, BatchSpec]]:
    """The batches to rebuild, but for those that cannot be read. Raises :class:`StorageUnavailable`."""
    for place in _places(root):
        try:
            spec = _unfinished_in(root, place)
        except ValueError:
            continue
        except OSError:
            # One directory says nothing of the others; is it the whole volume, there may be anything in it.
            outputs.probe(root)
            continue
        if spec is not None:
            yield place, spec


def _places(root: Path) -> Iterator[Path]:
    """The directories that may have a batch. Raises :class:`StorageUnavailable`."""
    yield root
    try:
        named = [entry for entry in root.iterdir() if outputs.BATCH_NAME.fullmatch(entry.name)]
    except OSError as error:
        raise StorageUnavailable(f"{root} cannot be read: {error.strerror}", field="OUTPUT_DIR") from error
    yield from sorted(named, key=lambda entry: (len(entry.name), entry.name))


def _unfinished_in(root: Path, place: Path) -> BatchSpec | None:
    """The batch in ``place``, unless it has ended; ValueError or OSError when there may be one that cannot be read."""
    if (place / outputs.SUMMARY_NAME).exists():
        return None
    spec = outputs.read_spec(place)
    if spec is None and (place / outputs.SPEC_NAME).exists():
        raise ValueError(f"{place / outputs.SPEC_NAME} cannot be read")
    return None if spec is None or (spec.startup and place != root) else spec


def _read_back(connection: Connection, place: Path, spec: BatchSpec) -> np.ndarray:
    """Write the record of each job whose CSV can be read into the table; returns which jobs those are.

    A power cut can leave an empty or a torn file where nothing was synced: what cannot be read is not done.
    """
    store = results.open_store(place, spec, checked=True)
    done = store.present(spec.jobs)
    for start in range(0, spec.jobs, CHUNK_JOBS):
        chunk = done[start : start + CHUNK_JOBS]
        records = np.zeros(len(chunk), dtype=record_dtype(spec.outputs))
        for position in np.flatnonzero(chunk):
            values = _values(store, start + int(position) + 1, spec.outputs)
            chunk[position] = values is not None
            for name, value in zip(spec.outputs, values or (), strict=False):
                records[position][f"out:{name}"] = value
        records["state"][chunk], records["attempt"][chunk] = JobState.COMPLETED, 1
        if chunk.any():
            table.write(connection, spec.id, start + 1, records.tobytes(), records.dtype.itemsize)
    return done


def _keep_only(connection: Connection, spec: BatchSpec, kept: np.ndarray) -> dict[str, Moments]:
    """Blank the records of all other jobs; returns the statistics of those that are kept."""
    found: dict[str, Moments] = {}
    dtype = record_dtype(spec.outputs)
    for start in range(0, spec.jobs, CHUNK_JOBS):
        chunk = kept[start : start + CHUNK_JOBS]
        records = table.read(connection, spec.id, start + 1, len(chunk), dtype).copy()
        if (records["state"][~chunk] != JobState.PENDING).any():
            records[~chunk] = np.zeros((), dtype=dtype)
            table.write(connection, spec.id, start + 1, records.tobytes(), dtype.itemsize)
        collect(found, records[chunk], spec.outputs)
    return found


def _values(store: results.Store, index: int, names: Sequence[str]) -> tuple[float, ...] | None:
    try:
        row = results.parse(store.read(index) or b"")
        return None if row is None else tuple(float(row[name]) for name in names)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _noted(place: Path) -> dict[str, Any]:
    """What ``control.json`` says, each of it in its form; ValueError when it is damaged."""
    path = place / outputs.CONTROL_NAME
    found = outputs.read_control(place)
    if not found and path.exists() and path.read_bytes().split() != [b"{}"]:
        raise ValueError(f"{path} cannot be read")
    try:
        said: dict[str, Any] = {name: int(found[name]) for name in ADJUSTED if name in found}
        for name in ("cancelled", "closed"):
            said[name] = united([(int(first), int(count)) for first, count in found.get(name, [])])
            if any(first < 1 or count < 1 for first, count in said[name]):
                raise ValueError(f"{name} has jobs that there are not")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return said


def _as_changed(spec: BatchSpec, noted: dict[str, Any]) -> BatchSpec:
    """The specification with the hold, throttle, priority and max_fails that it had last."""
    return replace(
        spec,
        hold=bool(noted.get("held", spec.hold)),
        throttle=noted.get("throttle", spec.throttle),
        priority=noted.get("priority", spec.priority),
        max_fails=noted.get("max_fails", spec.max_fails),
    )


def _is_awaited(root: Path, batch_id: int) -> bool:
    """Whether a batch may yet be rebuilt: it is unfinished, or what its directory has cannot be read now."""
    place = root / str(batch_id)
    try:
        _unfinished_in(root, place if place.exists() else root)
    except (ValueError, OSError):
        # How it ended is not known: a batch that waits for it must be neither cancelled nor let go.
        return True
    return any(spec.id == batch_id for _, spec in _unfinished(root))


def _root(place: Path, spec: BatchSpec) -> Path:
    return place if spec.startup else place.parent
