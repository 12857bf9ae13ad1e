"""Batches that follow another element by element: what had completed there before they came is released here.

What completes later is released by the commit itself.
"""

from collections.abc import Iterator
from pathlib import Path

from celery import Celery

from common import outputs, queue, results
from common.batch import BatchSpec, JobState
from common.ledger import Connection, batches, keys, ranges, rebuilds, table
from common.ledger.table import record_dtype
from common.runs import runs

CHUNK_JOBS = 2**16


def follow(connection: Connection, app: Celery, root: Path) -> None:
    """Release the elements of all batches that were not looked at yet."""
    for entry in sorted(connection.command("SMEMBERS", keys.UNPRIMED)):
        follower, followed = (int(part) for part in entry.decode().split(":"))
        gone = not batches.exists(connection, followed)
        if gone and (not batches.is_marked(connection) or rebuilds.awaits(connection, followed)):
            # Redis was emptied, and is being refilled: the followed batch may come yet, with completed jobs.
            continue
        for found in _completed(connection, root, followed):
            if found:
                queue.publish(app, ranges.unblock(connection, follower, found))
        queue.publish(app, ranges.unblock(connection, follower, [], primed=entry.decode()))


def _completed(connection: Connection, root: Path, followed: int) -> Iterator[list[tuple[int, int]]]:
    """The runs of completed jobs of a batch: by the ledger, or of one that it has forgotten, by its results."""
    if batches.exists(connection, followed):
        spec: BatchSpec | None = batches.view(connection, followed).spec
        assert spec is not None
        for first in range(1, spec.jobs + 1, CHUNK_JOBS):
            yield completed_runs(connection, spec, first, min(CHUNK_JOBS, spec.jobs - first + 1))
        return
    place = root / str(followed)
    spec = outputs.read_spec(place if place.is_dir() else root)
    if spec is not None and spec.id == followed:
        present = results.open_store(outputs.locate(root, spec), spec).present(spec.jobs)
        for start in range(0, spec.jobs, CHUNK_JOBS):
            yield runs(present[start : start + CHUNK_JOBS], start + 1)


def completed_runs(connection: Connection, spec: BatchSpec, first: int, count: int) -> list[tuple[int, int]]:
    """Runs of COMPLETED jobs among ``count`` jobs from ``first`` on, as (first, count)."""
    states = table.read(connection, spec.id, first, count, record_dtype(spec.outputs))["state"]
    return runs(states == JobState.COMPLETED, first)
