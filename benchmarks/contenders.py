"""What the engine is measured against: each runs the same job function and writes the same files in the same way."""

import multiprocessing
import os
import time
from pathlib import Path

from common import outputs
from common.batch import BatchSpec
from services.worker.job import BatchJob

SYNC_SECONDS = 1.0


def _bare_slot(arguments: tuple[str, int, int, int, str]) -> float:
    """Every ``slots``-th job, in order, synced once a second as the engine's slices are."""
    root, slot, slots, jobs, durability = arguments
    job = BatchJob(BatchSpec(1, jobs, 42), Path(root), f"bare-{slot}", durability)
    begin = synced = time.perf_counter()
    for index in range(1 + slot, jobs + 1, slots):
        job.run(index)
        if time.perf_counter() - synced > SYNC_SECONDS:
            job.sync()
            synced = time.perf_counter()
    job.sync()
    return time.perf_counter() - begin


def bare(root: Path, jobs: int, slots: int = 2, durability: str = "slice") -> float:
    """The limit: bare processes with nothing to coordinate; seconds of the slowest."""
    outputs.prepare(root, BatchSpec(1, jobs, 42))
    with multiprocessing.Pool(slots) as pool:
        shares = [(str(root), slot, slots, jobs, durability) for slot in range(slots)]
        return max(pool.map(_bare_slot, shares, chunksize=1))


_job: list[BatchJob] = []


def _open(root: str, jobs: int) -> None:
    _job[:] = [BatchJob(BatchSpec(1, jobs, 42), Path(root), f"pool-{os.getpid()}", "none")]


def _run(index: int) -> float:
    return _job[0].run(index)[0]


def pool(root: Path, jobs: int, slots: int = 2) -> float:
    """``multiprocessing.Pool.map`` over the job numbers, as the original program used it; nothing synced."""
    outputs.prepare(root, BatchSpec(1, jobs, 42))
    with multiprocessing.Pool(slots, _open, (str(root), jobs)) as workers:
        begin = time.perf_counter()
        workers.map(_run, range(1, jobs + 1))
        return time.perf_counter() - begin
