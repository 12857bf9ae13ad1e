"""Who is measured: each runs the same job function and writes the same files, on two slots, in a directory of its own.

The time of each is that which a user waits: from the start signal, the submit or the first send, to the last result.
"""

import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import plain_celery
from benchmarks.engine import Engine
from benchmarks.processes import peak_mb
from benchmarks.system import Result, python
from common import outputs
from common.batch import BatchSpec
from services.worker.job import BatchJob


@dataclass(frozen=True)
class Contender:
    """``run`` takes a directory, the number of jobs and the durability. Left out above ``largest`` jobs."""

    name: str
    run: Callable[[Path, int, str], Result]
    largest: int | None = None


def bare(root: Path, jobs: int, durability: str = "slice", *, slots: int = 2, job_seconds: float = 0.0) -> Result:
    """The limit: bare processes with nothing to coordinate."""
    spec = BatchSpec(1, jobs, 42, job_seconds=job_seconds)
    outputs.prepare(root, spec)
    directory = str(outputs.directory(root, spec))
    processes = [
        subprocess.Popen(
            python("-m", "benchmarks.bare", directory, str(slot), str(slots), durability),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for slot in range(slots)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate()[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    peak = max(each["peak_mb"] for each in found)
    in_jobs = sum(each["in_jobs"] for each in found)
    return Result(max(each["seconds"] for each in found), {"slot": peak}, in_jobs=in_jobs)


def engine(root: Path, jobs: int, durability: str = "slice", *, output_mode: str = "files") -> Result:
    """The engine, as a fresh system with one worker; its peaks include the writing of the results files."""
    with Engine(root, DURABILITY=durability) as system:
        begin = time.time()
        view = system.run(jobs, output_mode=output_mode)
        assert view.ended
        system.wait_finished(view.spec.id)
        return Result(view.ended - begin, system.peaks())


def packed(root: Path, jobs: int, durability: str = "slice") -> Result:
    """The engine with packed outputs: the same results, without a file for each."""
    return engine(root, jobs, durability, output_mode="packed")


_job: list[BatchJob] = []


def _open(root: str, jobs: int) -> None:
    _job[:] = [BatchJob(BatchSpec(1, jobs, 42), Path(root), f"pool-{os.getpid()}", "none")]


def _run(index: int) -> float:
    return _job[0].run(index)[0]


def pool(root: Path, jobs: int, _durability: str = "none", *, slots: int = 2) -> Result:
    """``multiprocessing.Pool.map`` over the job numbers, as the original program used it; nothing synced."""
    outputs.prepare(root, BatchSpec(1, jobs, 42))
    with multiprocessing.Pool(slots, _open, (str(root), jobs)) as workers:
        begin = time.perf_counter()
        workers.map(_run, range(1, jobs + 1))
        seconds = time.perf_counter() - begin
        peak = max(peak_mb(child.pid) for child in multiprocessing.active_children() if child.pid)
        return Result(seconds, {"slot": peak, "main": peak_mb(os.getpid())})


LIMIT = Contender("two bare processes", bare)
ENGINE = Contender("hpc-batch-sim", engine)
PACKED = Contender("hpc-batch-sim, packed", packed)
CHUNKS = Contender("Celery chunks of 100", plain_celery.chunks, 100_000)
TASKS = Contender("Celery, one task a job", plain_celery.tasks, 10_000)
POOL = Contender("multiprocessing.Pool", pool)
