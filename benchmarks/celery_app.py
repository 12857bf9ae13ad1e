"""A Celery application as its tutorial has it: one task that runs one job. Celery's defaults, but for results.

The worker takes the broker, the outputs directory and the durability from its environment.
"""

import os
import time
from pathlib import Path

from celery import Celery

from benchmarks.bare import SYNC_SECONDS
from common import outputs
from services.worker.job import BatchJob

BROKER_VARIABLE = "PLAIN_CELERY_BROKER"
TASK = "run_job"

_open: dict[int, BatchJob] = {}
_synced: list[float] = [time.perf_counter()]


def run_job(batch: int, index: int) -> None:
    """Run a job and write its file; synced once a second, as by the others."""
    if batch not in _open:
        _open[batch] = _job(batch)
    _open[batch].run(index)
    if time.perf_counter() - _synced[0] > SYNC_SECONDS:
        _open[batch].sync()
        _synced[0] = time.perf_counter()


def _job(batch: int) -> BatchJob:
    root = Path(os.environ["OUTPUT_DIR"])
    spec = outputs.read_spec(root / str(batch))
    assert spec
    return BatchJob(spec, root, f"celery-{os.getpid()}", os.environ["DURABILITY"])


def make_app(broker_url: str) -> Celery:
    """The application on this broker; connects only when it is used."""
    made = Celery("plain", broker=broker_url)
    made.task(name=TASK, ignore_result=True)(run_job)
    return made


# What `celery --app benchmarks.celery_app` looks for.
app = make_app(os.environ.get(BROKER_VARIABLE, "redis://"))
