"""Results files and verifications while every slot is at a long range."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import queue
from common.batch import BatchSpec
from common.ledger import Connection, batches, control, finishing, ranges, workers
from common.options import read_options
from common.queue import errands_name
from common.submission import Submitter
from common.verification import Verifier
from services.worker.housekeeper import Housekeeper
from tests.conftest import SLICE_SECONDS, StartWorker
from tests.integration import ledger_support
from tests.integration.ledger_support import take
from tests.integration.test_program_batches import submit
from tests.support import counted, slice_of, wait_for


@pytest.fixture
def long(connection: Connection, submitter: Submitter, home: Path) -> Iterator[BatchSpec]:
    """A batch of which the test sees no end."""
    spec = submit(submitter, ["sleep", "0.02"], 100_000, home)
    yield spec
    assert not batches.view(connection, spec.id).ended


def test_results_are_written_while_a_long_batch_runs(
    connection: Connection, submitter: Submitter, worker: StartWorker, long: BatchSpec
) -> None:
    """Of one that ran meanwhile, and of one that was cancelled, which no slot closed."""
    running = worker()
    wait_for(lambda: batches.view(connection, long.id).done, 30, "a slice of the long one", running.text)
    short = submitter.submit(4).id
    wait_for(lambda: batches.view(connection, short).finished, 60, "its results", lambda: counted(connection, short))
    cancelled = submitter.submit(4, options=read_options({"hold": True})).id
    control.cancel(connection, cancelled)
    wait_for(lambda: batches.view(connection, cancelled).finished, 60, "its results", running.text)


def test_jobs_are_verified_while_a_long_batch_runs(
    connection: Connection, redis_url: str, submitter: Submitter, worker: StartWorker, long: BatchSpec
) -> None:
    """By the one slot, between two slices."""
    control.adjust(connection, long.id, "held", 1)
    running = worker()
    short = submitter.submit(4).id
    wait_for(lambda: batches.view(connection, short).finished, 60, "its results", lambda: counted(connection, short))
    wait_for(lambda: workers.alive(connection), 20, "its heartbeat")
    queue.publish(queue.make_app(redis_url), control.adjust(connection, long.id, "held", 0))
    wait_for(lambda: batches.view(connection, long.id).done, 30, "a slice of the long one", running.text)
    verifier = Verifier(connection, queue.make_app(redis_url))
    name = verifier.request(short, 4)
    wait_for(lambda: verifier.look(short, name).done, 60, "the verification", lambda: verifier.look(short, name))
    assert verifier.look(short, name).checked == 4


def word_of_commit(connection: Connection, errands: str) -> str:
    """What a slot that has run one of many jobs is told."""
    lease = take(connection)
    work = slice_of(lease.first, [1.0])
    return ranges.commit(
        connection, lease, work, lease_seconds=60, slice_seconds=SLICE_SECONDS, errands=errands.split()
    ).word


def test_only_what_can_be_taken_ends_a_turn(ledger: Connection) -> None:
    """A message in the partition's own queue; not that results are still to be written, whose message may be lost."""
    control.cancel(ledger, ledger_support.submit(ledger, 1).id)
    ledger_support.submit(ledger, 100, ranges=[(1, 50), (51, 50)])
    ledger.command("LPUSH", errands_name("gpu"), "a")
    assert finishing.awaited(ledger)
    assert word_of_commit(ledger, errands_name("default")) == "continue"
    assert word_of_commit(ledger, f"{errands_name('default')} {errands_name('gpu')}") == "released"


def test_each_batch_is_asked_for_once(ledger: Connection, redis_url: str, root: Path) -> None:
    """However many wait for their results, the queue is read once a round, and each is in it once."""
    awaited = {ledger_support.submit(ledger, 1).id for _ in range(20)}
    for batch in awaited:
        control.cancel(ledger, batch)
    app = queue.make_app(redis_url)
    now = iter(range(0, 1000, 6))
    keeper = Housekeeper(ledger, app, "w", root, lease_seconds=60, slice_seconds=1, clock=lambda: float(next(now)))
    for _ in range(3):
        keeper.sweep()
    app.close()
    assert queue.queued_finishes(ledger, "default") == awaited
    assert ledger.command("LLEN", errands_name("default")) == len(awaited)
