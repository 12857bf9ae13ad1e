"""One bare process: ``python -m benchmarks.bare DIRECTORY SLOT SLOTS DURABILITY``.

Runs every SLOTS-th job of the batch in DIRECTORY, in order, and syncs once a second, as the engine's slices do. It says
that it is ready, waits for a line, and prints what it measured as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.processes import peak_mb
from common import outputs
from common.batch import BatchSpec
from services.worker.job import BatchJob

SYNC_SECONDS = 1.0


def main(arguments: list[str]) -> None:
    """Run and print."""
    directory, slot, slots, durability = arguments
    spec = outputs.read_spec(Path(directory))
    assert spec
    job = BatchJob(spec, Path(directory).parent, f"bare-{slot}", durability)
    print("ready", flush=True)
    sys.stdin.readline()
    seconds, in_jobs = run(job, spec, int(slot), int(slots))
    print(json.dumps({"seconds": seconds, "in_jobs": in_jobs, "peak_mb": peak_mb(os.getpid())}))


def run(job: BatchJob, spec: BatchSpec, slot: int, slots: int) -> tuple[float, float]:
    """Run this process's share; returns seconds in all and seconds in jobs."""
    clock, in_jobs = time.perf_counter, 0.0
    begin = synced = tick = clock()
    for index in range(1 + slot, spec.jobs + 1, slots):
        job.run(index)
        now = clock()
        in_jobs += now - tick
        tick = now
        if now - synced > SYNC_SECONDS:
            job.sync()
            synced = tick = clock()
    job.sync()
    return clock() - begin, in_jobs


if __name__ == "__main__":
    main(sys.argv[1:])
