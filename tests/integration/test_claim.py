"""A claim on a real Redis: a message leads to a range that waits, or to nothing."""

from common import queue
from common.batch import BatchSpec
from common.ledger import Connection, batches, ranges
from tests.integration.ledger_support import claim, commit, ids, submit, take
from tests.support import counted, dump


def test_message_leads_to_its_own_range(connection: Connection) -> None:
    """With one batch the ticket tells the truth: its own range is served, though it is not the oldest."""
    spec = BatchSpec(next(ids), 5, 1)
    _, offered = batches.submit(connection, spec)
    ticket = offered[3]
    lease = take(connection, spec.id, ticket.token)
    assert (lease.token, lease.first, lease.count) == (ticket.token, ticket.first, ticket.count)


def test_second_delivery_finds_nothing(connection: Connection) -> None:
    """When all is taken, a message that is delivered again goes away and changes nothing."""
    spec = BatchSpec(next(ids), 1, 1)
    _, [ticket] = batches.submit(connection, spec)
    take(connection, spec.id, ticket.token)
    before = dump(connection)
    assert claim(connection, spec.id, ticket.token) is None
    assert dump(connection) == before


def test_jobs_per_task(connection: Connection) -> None:
    """With JOBS_PER_TASK no claim gives more, and nothing is lost over it."""
    spec = submit(connection, 500, slots=1)
    sizes = []
    while (lease := claim(connection, most=3)) is not None:
        sizes.append(lease.count)
        commit(connection, lease, lease.count)
        counted(connection, spec.id)
    assert max(sizes) == 3
    assert sum(sizes) == 500
    assert batches.view(connection, spec.id).ended


def test_owed_counts_ranges_and_messages(connection: Connection) -> None:
    """Ranges that wait, and messages in the queue, each counted over all batches."""
    submit(connection, 5)
    submit(connection, 7)
    connection.command("LPUSH", queue.QUEUE, "a", "b")
    before = dump(connection)
    assert ranges.owed(connection, queue.QUEUE) == (12, 2)
    assert dump(connection) == before
    take(connection)
    assert ranges.owed(connection, queue.QUEUE) == (11, 2)
