"""A batch that is held starts nothing; a release lets it go on where it was."""

from common.ledger import Connection, batches, control, keys, ranges
from common.queue import QUEUE
from tests.integration.ledger_support import (
    assert_consistent,
    claim,
    commit,
    run_all,
    submit,
    take,
)
from tests.support import counted


def test_a_batch_that_is_submitted_held_waits(ledger: Connection) -> None:
    """It has no tickets, owes none, is HELD, and nobody gets a range of it; the release hands out every ticket."""
    spec = submit(ledger, 5, hold=True)
    assert batches.view(ledger, spec.id).state == "HELD"
    assert ranges.owed(ledger, QUEUE) == (0, 0)
    assert claim(ledger, spec.id) is None
    assert_consistent(ledger)
    tickets = control.adjust(ledger, spec.id, "held", 0)
    assert [ticket.first for ticket in tickets] == [1, 2, 3, 4, 5]
    assert ranges.owed(ledger, QUEUE) == (5, 0)
    assert sorted(run_all(ledger)) == [1, 2, 3, 4, 5]


def test_a_held_batch_gives_its_slots_back(ledger: Connection) -> None:
    """Running jobs end; the rest of their range waits with the others until the release."""
    spec = submit(ledger, 20, ranges=[(1, 10), (11, 10)])
    lease = take(ledger)
    assert control.adjust(ledger, spec.id, "held", 1) == []
    assert batches.view(ledger, spec.id).state == "RUNNING"
    verdict = commit(ledger, lease, 3)
    assert (verdict.word, verdict.tickets) == ("released", ())
    assert counted(ledger, spec.id) == {"COMPLETED": 3, "PENDING": 17}
    assert batches.view(ledger, spec.id).state == "HELD"
    assert claim(ledger, spec.id) is None
    assert_consistent(ledger)
    assert len(control.adjust(ledger, spec.id, "held", 0)) == 2
    assert sorted(run_all(ledger)) == list(range(4, 21))


def test_a_hold_during_the_last_job_holds_up_nothing(ledger: Connection) -> None:
    """There is nothing left to hold: the batch ends."""
    spec = submit(ledger, 1)
    lease = take(ledger)
    control.adjust(ledger, spec.id, "held", 1)
    assert commit(ledger, lease, 1).ended
    assert batches.view(ledger, spec.id).state == "COMPLETED"


def test_a_held_batch_makes_room_for_others(ledger: Connection) -> None:
    """Its place in the order is not kept, and nobody waits for it."""
    first, second = submit(ledger, 2, hold=True), submit(ledger, 2)
    assert run_all(ledger) == [1, 2]
    assert counted(ledger, first.id) == {"PENDING": 2}
    assert counted(ledger, second.id) == {"COMPLETED": 2}


def test_holding_twice_and_releasing_twice_changes_nothing_more(ledger: Connection) -> None:
    """A second release has no tickets to hand out."""
    spec = submit(ledger, 3)
    for _ in range(2):
        assert control.adjust(ledger, spec.id, "held", 1) == []
        assert_consistent(ledger)
    assert len(control.adjust(ledger, spec.id, "held", 0)) == 3
    assert control.adjust(ledger, spec.id, "held", 0) == []


def test_a_held_range_that_is_lost_waits(ledger: Connection) -> None:
    """What a worker loses of a held batch is not offered before the release."""
    spec = submit(ledger, 4, ranges=[(1, 4)])
    lease = take(ledger)
    control.adjust(ledger, spec.id, "held", 1)
    assert ranges.reclaim(ledger, [lease.token]) == []
    assert_consistent(ledger)
    [ticket] = control.adjust(ledger, spec.id, "held", 0)
    assert (ticket.first, ticket.count) == (1, 4)


def test_slots_do_not_share_what_is_held(ledger: Connection) -> None:
    """The long range of a held batch is not cut for idle slots: nobody could take the parts."""
    spec = submit(ledger, 100, ranges=[(1, 100)])
    take(ledger)
    control.adjust(ledger, spec.id, "held", 1)
    ledger.command("HSET", keys.PARTITION_SLOTS, "default", 4)
    assert ranges.share(ledger, slice_seconds=-1) == []
