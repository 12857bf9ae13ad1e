"""Partitions are queues and slots of their own: nothing of one is seen by another."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from common.ledger import Connection, batches, control, keys, ranges, workers
from common.ledger.ranges import Lease
from common.ledger.workers import WorkerInfo
from common.options import read_options
from common.queue import FINISH, QUEUE, errands_name, make_app, queue_name
from common.submission import Submitter
from services.worker.housekeeper import Housekeeper
from tests.conftest import StartWorker
from tests.integration.ledger_support import (
    assert_consistent,
    claim,
    commit,
    make_due,
    run_all,
    submit,
    take,
)
from tests.support import counted, slice_of, wait_for


def test_a_claim_finds_only_its_own_partition(ledger: Connection) -> None:
    """Also with a ticket that names another's range."""
    here, there = submit(ledger, 2), submit(ledger, 2, partition="gpu")
    [token, *_] = [ticket.token for ticket in ranges.open_ranges(ledger, there.id)]
    assert take(ledger, there.id, token).batch == here.id
    assert take(ledger, partition="gpu").batch == there.id
    assert_consistent(ledger)
    assert claim(ledger, partition="nobody") is None
    assert len(run_all(ledger, partition="gpu")) == 1
    assert len(run_all(ledger)) == 1


def test_tickets_carry_their_partition(ledger: Connection) -> None:
    """Whatever made them: submit, reclaim, retry, release of a hold, cancel of a part."""
    spec = submit(ledger, 20, ranges=[(1, 10), (11, 10)], partition="gpu", retries=1, hold=True)
    made = control.adjust(ledger, spec.id, "held", 0)
    lease = take(ledger, partition="gpu")
    made += ranges.reclaim(ledger, [lease.token])
    commit(ledger, take(ledger, partition="gpu"), 2, retried=[1, 2], give_back=True)
    make_due(ledger, spec.id)
    made += ranges.release(ledger)
    made += control.cancel(ledger, spec.id, 12, 13)[1]
    assert len(made) == 5
    assert {ticket.partition for ticket in made} == {"gpu"}


def test_each_partition_owes_its_own_tickets(ledger: Connection) -> None:
    """Ranges and messages are counted in the partition's set and queue."""
    submit(ledger, 3)
    submit(ledger, 5, partition="gpu")
    ledger.command("LPUSH", queue_name("gpu"), "a")
    assert queue_name("default") == QUEUE
    assert ranges.owed(ledger, queue_name("default")) == (3, 0)
    assert ranges.owed(ledger, queue_name("gpu"), "gpu") == (5, 1)
    assert ranges.partitions(ledger) == ["default", "gpu"]


def claim_as(worker: str, connection: Connection, partition: str = "default") -> Lease:
    """A slot of the worker takes what is first in the line."""
    slot = f"{worker}/0"
    lease, _ = ranges.claim(
        connection, (0, ""), worker=worker, slot=slot, lease_seconds=60, slice_seconds=1, partition=partition
    )
    assert lease is not None
    return lease


def test_leases_are_counted_by_partition(ledger: Connection) -> None:
    """What is leased in one leaves the other's slots idle."""
    submit(ledger, 1)
    submit(ledger, 100, ranges=[(1, 100)], partition="gpu")
    workers.heartbeat(ledger, WorkerInfo("a", 2, 0, 1, ("default",)))
    workers.heartbeat(ledger, WorkerInfo("b", 2, 0, 2, ("gpu",)))
    take(ledger)
    lease = take(ledger, partition="gpu")
    assert ledger.command("HGETALL", keys.LEASED) == {b"default": b"1", b"gpu": b"1"}
    assert lease.count == 50, "the idle slot of its own partition gets its half, those of another nothing"


def test_only_idle_slots_of_the_partition_get_a_part(ledger: Connection) -> None:
    """A long range is shared for a worker that serves its partition, also if that serves another one too."""
    submit(ledger, 100, ranges=[(1, 100)], partition="gpu")
    take(ledger, partition="gpu")
    workers.heartbeat(ledger, WorkerInfo("a", 8, 0, 1, ("default",)))
    assert ranges.share(ledger, slice_seconds=-1, partition="gpu") == []
    assert ranges.share(ledger, slice_seconds=-1) == []
    workers.heartbeat(ledger, WorkerInfo("b", 2, 0, 2, ("default", "gpu")))
    assert ranges.share(ledger, slice_seconds=-1) == []
    [ticket] = ranges.share(ledger, slice_seconds=-1, partition="gpu")
    assert ticket.partition == "gpu"


@pytest.mark.parametrize(("at_work", "kept"), [(0, 34), (1, 50), (2, 100)])
def test_slots_at_work_in_another_partition_are_not_idle(ledger: Connection, at_work: int, kept: int) -> None:
    """Of a worker that serves two, only those get a part that are at work in neither."""
    workers.heartbeat(ledger, WorkerInfo("both", 2, 0, 1, ("default", "gpu")))
    workers.heartbeat(ledger, WorkerInfo("gpu", 1, 0, 2, ("gpu",)))
    for _ in range(at_work):
        submit(ledger, 1)
        assert claim_as("both", ledger).count == 1
    submit(ledger, 100, ranges=[(1, 100)], partition="gpu")
    assert claim_as("gpu", ledger, "gpu").count == kept


def test_a_partition_without_workers_harms_no_other(ledger: Connection) -> None:
    """A high priority there holds up nobody here."""
    stuck, spec = submit(ledger, 2, partition="nobody", priority=100), submit(ledger, 2)
    assert run_all(ledger) == [1, 2]
    assert counted(ledger, stuck.id) == {"PENDING": 2}
    assert batches.view(ledger, spec.id).ended


def finish_messages(connection: Connection, partition: str) -> int:
    """How many messages to write results files wait in the partition."""
    found = connection.command("LRANGE", errands_name(partition), 0, -1)
    return sum(FINISH.encode() in message for message in found)


def test_a_batch_whose_partition_has_no_workers_is_finished_by_another(
    ledger: Connection, redis_url: str, root: Path
) -> None:
    """Cancelled where nobody serves it, it ends with its results files; asked for once, as long as that is taken."""
    clock = itertools.count(0, 60)
    app = make_app(redis_url)
    keeper = Housekeeper(ledger, app, "w", root, lease_seconds=60, slice_seconds=1, clock=lambda: float(next(clock)))
    workers.heartbeat(ledger, WorkerInfo("a", 2, 0, 1, ("cpu",)))
    # It is leaving: it takes nothing more.
    workers.heartbeat(ledger, WorkerInfo("b", 0, 0, 2, ("gpu",)))
    for partition in ("gpu", "cpu"):
        control.cancel(ledger, submit(ledger, 3, partition=partition).id)
    keeper.sweep()
    assert (finish_messages(ledger, "gpu"), finish_messages(ledger, "cpu")) == (0, 2)
    workers.heartbeat(ledger, WorkerInfo("b", 1, 0, 2, ("gpu",)))
    keeper.sweep()
    assert (finish_messages(ledger, "gpu"), finish_messages(ledger, "cpu")) == (0, 2), "it waits already"
    ledger.command("DEL", errands_name("cpu"))
    keeper.sweep()
    assert (finish_messages(ledger, "gpu"), finish_messages(ledger, "cpu")) == (1, 1), "each where it belongs"


BOTH = [("default", QUEUE), ("gpu", queue_name("gpu"))]


@pytest.mark.parametrize(
    ("priority", "message", "requires", "word"),
    [
        (0, True, "", "released"),
        (1, True, "", "released"),
        (-1, True, "", "continue"),
        (1, False, "", "continue"),
        (1, True, "other:v1", "continue"),
    ],
    ids=["equal", "higher", "lower", "no message", "not for this worker"],
)
def test_who_serves_two_partitions_gives_way(
    ledger: Connection, priority: int, message: bool, requires: str, word: str
) -> None:
    """After a slice, to a batch of the other that comes no later, if its ticket is there and the worker can run it."""
    submit(ledger, 100, ranges=[(1, 100)])
    lease = claim_as("a", ledger)
    given = {"simulation": requires.partition(":")[0], "version": requires.partition(":")[2]} if requires else {}
    submit(ledger, 10, partition="gpu", priority=priority, **given)
    if message:
        ledger.command("LPUSH", queue_name("gpu"), "a ticket")

    def told(lease: Lease, **given: object) -> str:
        work = slice_of(lease.first, [1.0])
        return ranges.commit(ledger, lease, work, lease_seconds=60, slice_seconds=1, **given).word  # type: ignore[arg-type]

    assert told(lease) == "continue"
    lease = replace(lease, first=2, count=lease.count - 1)
    assert told(lease, partitions=BOTH[:1]) == "continue"
    lease = replace(lease, first=3, count=lease.count - 1)
    assert told(lease, partitions=BOTH) == word


def test_a_slot_of_two_partitions_is_shared(
    connection: Connection, submitter: Submitter, root: Path, worker: StartWorker
) -> None:
    """However long the batch is that it is at; one of lower priority waits."""
    running = worker(WORKER_PARTITIONS="default,gpu")
    long = submitter.submit(100_000, job_seconds=0.02)
    wait_for(lambda: batches.view(connection, long.id).done, 60, "a slice of the long one", running.text)
    low = submitter.submit(20, job_seconds=0.02, options=read_options({"partition": "gpu", "priority": -1}))
    short = submitter.submit(10, job_seconds=0.02, options=read_options({"partition": "gpu"}))
    wait_for(lambda: batches.view(connection, short.id).ended, 60, "the short one", running.text)
    assert not batches.view(connection, long.id).ended
    assert batches.view(connection, low.id).done < 20
