"""Slices that run in children of their slots, because a job of the batch killed its process."""

import os
import signal
from pathlib import Path

from benchmarks.processes import children
from common import queue
from common.audit import audit
from common.ledger import Connection, batches
from common.submission import Submitter
from tests.conftest import LONG_LEASE_SECONDS, StartWorker
from tests.support import Running, counted, differences, expected_files, files, runs, wait_for
from tests.system.test_misbehaving import SEED, isolate, submit, wait_finished


def grandchildren(worker: Running) -> list[int]:
    """The processes in which slots run slices."""
    return [pid for slot in children(worker.pid) for pid in children(slot)]


def test_a_slot_survives_all_crashes_but_the_first(
    connection: Connection, redis_url: str, root: Path, worker: StartWorker
) -> None:
    running = worker(slots=1, LEASE_SECONDS=LONG_LEASE_SECONDS)
    first = children(running.pid)
    spec = submit(connection, redis_url, root, 6, parameters={"kills": 1}, crash_limit=3)
    wait_for(lambda: batches.view(connection, spec.id).crashes >= 2, 60, "two crashes", running.text)
    second = children(running.pid)
    wait_finished(connection, spec, running)
    assert batches.view(connection, spec.id).crashes == 18
    assert first != second
    assert children(running.pid) == second
    assert running.text().count("slot.died") == 18
    assert audit(connection, root, spec.id) == []


def test_a_killed_slot_takes_its_child_along(
    connection: Connection, redis_url: str, root: Path, worker: StartWorker
) -> None:
    """The job that ran then runs once more, and nobody runs the range beside the slot that has it next."""
    spec = Submitter(connection, queue.make_app(redis_url), root).submit(40, SEED, job_seconds=0.1)
    isolate(connection, spec)
    running = worker(slots=1, LEASE_SECONDS=LONG_LEASE_SECONDS)
    child = wait_for(lambda: grandchildren(running), 60, "a child of the slot", running.text)[0]
    os.kill(children(running.pid)[0], signal.SIGKILL)
    wait_for(lambda: not runs(child), 60, "the child's end", running.text)
    wait_finished(connection, spec, running)
    assert counted(connection, spec.id) == {"COMPLETED": 40}
    assert differences(files(root / str(spec.id)), expected_files(SEED, 40)) == []
    assert audit(connection, root, spec.id) == []


def test_a_shutdown_lets_the_child_end_its_job(
    connection: Connection, redis_url: str, root: Path, worker: StartWorker
) -> None:
    spec = Submitter(connection, queue.make_app(redis_url), root).submit(100, SEED, job_seconds=0.05)
    isolate(connection, spec)
    running = worker(slots=2, LEASE_SECONDS=LONG_LEASE_SECONDS)
    wait_for(lambda: grandchildren(running), 60, "a child of a slot", running.text)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    after = worker(slots=1, LEASE_SECONDS=LONG_LEASE_SECONDS)
    wait_finished(connection, spec, after)
    assert batches.view(connection, spec.id).crashes == 1
    assert differences(files(root / str(spec.id)), expected_files(SEED, 100)) == []
    assert audit(connection, root, spec.id) == []
