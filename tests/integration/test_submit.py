"""A submit on a real Redis: the ranges cover the jobs exactly, ids and keys are given out once."""

import itertools
import threading
from pathlib import Path

import pytest

from common import queue
from common.batch import INITIAL_RANGES, BatchSpec
from common.errors import Conflict, NotFound
from common.ledger import Connection, batches, control, keys, ranges
from common.submission import Submitter
from tests.integration.ledger_support import ids
from tests.support import counted, dump


@pytest.mark.parametrize("jobs", [1, 5, 64, 65, 1000, 10_000_000])
def test_submit(connection: Connection, jobs: int) -> None:
    """All jobs are PENDING, the ranges cover them exactly, and nothing of the table is allocated."""
    spec = BatchSpec(next(ids), jobs, 1)
    batch, offered = batches.submit(connection, spec)
    assert batch == spec.id
    assert counted(connection, batch) == {"PENDING": jobs}
    assert len(offered) == min(jobs, INITIAL_RANGES)
    counts = [ticket.count for ticket in offered]
    assert [ticket.first for ticket in offered] == list(itertools.accumulate(counts[:-1], initial=1))
    assert sum(counts) == jobs
    assert len({ticket.token for ticket in offered}) == len(offered)
    assert all(ranges.lookup(connection, ticket.token) == ticket for ticket in offered)
    assert not connection.command("EXISTS", keys.table(batch, 0))
    assert batches.view(connection, batch).spec == spec
    assert ranges.owed(connection, queue.QUEUE) == (len(offered), 0)


def test_submit_up_to_64_jobs_is_one_task_each_whatever_the_slots(connection: Connection) -> None:
    """NUM_JOBS=64 is 64 Celery tasks, on one slot or on a hundred."""
    for slots in (1, 100):
        _, offered = batches.submit(connection, BatchSpec(next(ids), 64, 1), slots=slots)
        assert [ticket.count for ticket in offered] == [1] * 64


def test_new_ids_are_never_given_twice(connection: Connection) -> None:
    """Ids grow, stay above what the outputs directory knows, and are unique among concurrent submitters."""
    assert [batches.new_id(connection), batches.new_id(connection)] == [1, 2]
    assert batches.new_id(connection, floor=40) == 41
    assert batches.new_id(connection, floor=7) == 42
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(batches.new_id(connection, 90))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 8
    assert min(got) > 90


def test_idempotency_key_with_concurrent_submits(connection: Connection, root: Path) -> None:
    """Eight submits at once with one key are one batch, and each caller gets its specification."""
    batches.mark(connection)
    submitter = Submitter(connection, queue.make_app("memory://localhost"), root)
    got: list[BatchSpec] = []
    barrier = threading.Barrier(8)

    def one() -> None:
        barrier.wait()
        got.append(submitter.submit(10, idempotency_key="k"))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len({spec.id for spec in got}) == 1
    assert connection.command("ZCARD", keys.BATCHES) == 1
    with pytest.raises(Conflict):
        submitter.submit(99, idempotency_key="k")
    left = sorted(path.name for path in root.iterdir() if path.is_dir())
    assert left == [str(got[0].id)], "a submit that came second left a directory"


def test_idempotency_key_expires_unless_it_is_for_ever(connection: Connection) -> None:
    """A key lives for its time; with 0 it never ends."""
    batches.submit(connection, BatchSpec(next(ids), 1, 1), idempotency_key="day", key_seconds=100)
    batches.submit(connection, BatchSpec(next(ids), 1, 1), idempotency_key="ever", key_seconds=0)
    assert 0 < connection.command("TTL", keys.idempotency("day")) <= 100
    assert connection.command("TTL", keys.idempotency("ever")) == -1


def test_unknown_batch(connection: Connection) -> None:
    """Looking at a batch that is not there is NotFound; cancelling it changes nothing."""
    with pytest.raises(NotFound):
        batches.view(connection, 99)
    assert control.cancel(connection, 99)[0] == 0
    assert dump(connection) == {}
