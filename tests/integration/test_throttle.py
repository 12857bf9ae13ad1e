"""No more slots than the throttle says work on a batch, whatever happens meanwhile, and no fewer for long."""

import random

import pytest

from common.batch import BatchSpec
from common.ledger import Connection, batches, control, keys, ranges
from common.queue import QUEUE
from tests.integration.ledger_support import (
    after,
    assert_consistent,
    claim,
    commit,
    ids,
    strike,
    submit,
    take,
)
from tests.support import counted


def running(connection: Connection, batch: int) -> int:
    """How many slots work on the batch."""
    return counted(connection, batch).get("RUNNING", 0)


def test_no_more_than_the_throttle(ledger: Connection) -> None:
    """Only as many tickets as places, and a claim too many finds nothing."""
    spec = submit(ledger, 10, throttle=3)
    assert ranges.owed(ledger, QUEUE) == (3, 0)
    leases = [take(ledger) for _ in range(3)]
    assert claim(ledger, spec.id) is None
    assert_consistent(ledger)
    verdict = commit(ledger, leases[0], 1)
    assert len(verdict.tickets) == 1, "the free place has no ticket"
    assert take(ledger).batch == spec.id
    assert claim(ledger) is None


def test_submit_publishes_as_many_tickets_as_places(ledger: Connection) -> None:
    """The others come as places become free."""
    _, tickets = batches.submit(ledger, BatchSpec(next(ids), 10, 1, throttle=4))
    assert [ticket.first for ticket in tickets] == [1, 2, 3, 4]


def test_a_lower_throttle_takes_slots_at_their_next_commit(ledger: Connection) -> None:
    """Running jobs end, then their slots go, one after the other, until the number fits."""
    spec = submit(ledger, 400, ranges=[(1 + 100 * i, 100) for i in range(4)], throttle=4)
    leases = [take(ledger) for _ in range(4)]
    control.adjust(ledger, spec.id, "throttle", 2)
    words = [commit(ledger, lease, 1).word for lease in leases]
    assert words == ["released", "released", "continue", "continue"]
    assert running(ledger, spec.id) == 2
    assert claim(ledger) is None


def test_a_higher_throttle_hands_out_tickets(ledger: Connection) -> None:
    """From full to half full: the new places can be taken at once."""
    spec = submit(ledger, 10, throttle=1)
    take(ledger)
    tickets = control.adjust(ledger, spec.id, "throttle", 4)
    assert len(tickets) == 3
    for ticket in tickets:
        take(ledger, ticket.batch, ticket.token)
    assert claim(ledger) is None


def test_no_throttle_any_more(ledger: Connection) -> None:
    """0 is no limit: everything that waits has a ticket."""
    spec = submit(ledger, 10, throttle=1)
    take(ledger)
    assert len(control.adjust(ledger, spec.id, "throttle", 0)) == 9
    assert ranges.owed(ledger, QUEUE) == (9, 0)


@pytest.mark.parametrize("how", ["commit", "give back", "reclaim", "strike", "cancel"])
def test_every_way_to_leave_a_place_gives_it_to_another(ledger: Connection, how: str) -> None:
    """Whatever ends a lease, there is a ticket for the place that became free."""
    spec = submit(ledger, 30, ranges=[(1, 10), (11, 10), (21, 10)], throttle=1)
    lease = take(ledger)
    assert ranges.owed(ledger, QUEUE) == (0, 0)
    tickets: list[object] = []
    if how == "commit":
        tickets += commit(ledger, lease, 10).tickets
    elif how == "give back":
        tickets += commit(ledger, lease, 1, give_back=True).tickets
    elif how == "reclaim":
        tickets += ranges.reclaim(ledger, [lease.token])
    elif how == "strike":
        tickets += strike(ledger, lease, 5)[2]
    else:
        assert control.cancel(ledger, spec.id, 1, 10)[1] == []
        tickets += ranges.stopped(ledger, lease.token)
    assert len(tickets) == 1
    assert ranges.owed(ledger, QUEUE) == (1, 0)
    assert running(ledger, spec.id) == 0
    take(ledger)


@pytest.mark.parametrize("how", ["reported", "given up"])
def test_a_cancelled_jobs_place_is_free_when_it_has_stopped(ledger: Connection, how: str) -> None:
    """Until its slot says so, or is not waited for any longer, its process may run: nothing else does."""
    spec = submit(ledger, 3, throttle=2)
    lease, other = take(ledger), take(ledger)
    assert control.cancel(ledger, spec.id, lease.first, lease.first) == (1, [])
    assert claim(ledger) is None
    assert ranges.release(ledger) == []
    assert ranges.stopped(ledger, other.token) == []
    if how == "reported":
        assert commit(ledger, lease, 1).word == "stale"
        tickets = ranges.stopped(ledger, lease.token)
        assert ranges.stopped(ledger, lease.token) == []
    else:
        ledger.command("ZADD", keys.STOPPING, "XX", 1, lease.token)
        assert ranges.release(ledger, patient=True) == []
        # Its worker still sees it at work.
        assert ranges.renew(ledger, {lease.token: lease.first}, lease_seconds=60) == [lease.token]
        assert ranges.release(ledger) == []
        ledger.command("ZADD", keys.STOPPING, "XX", 1, lease.token)
        tickets = ranges.release(ledger)
    assert [ticket.first for ticket in tickets] == [3]
    assert take(ledger).first == 3
    assert ledger.command("ZCARD", keys.STOPPING) == 0


def test_who_ends_a_batch_by_its_failures_takes_no_place(ledger: Connection) -> None:
    """Its lease is cut by its own commit, and it is at no job: what is run again begins at once."""
    spec = submit(ledger, 10, ranges=[(1, 10)], throttle=1, max_fails=0)
    lease = take(ledger)
    assert commit(ledger, lease, 2, failed=[1]).ended
    assert ledger.command("ZCARD", keys.STOPPING) == 0
    assert counted(ledger, spec.id) == {"COMPLETED": 1, "FAILED": 1, "ABORTED": 8}


def test_idle_slots_get_no_part_beyond_the_throttle(ledger: Connection) -> None:
    """A long range is shared among as many slots as may work on the batch."""
    spec = submit(ledger, 100, ranges=[(1, 100)], throttle=2)
    ledger.command("HSET", keys.PARTITION_SLOTS, "default", 8)
    lease = take(ledger)
    assert lease.count == 50
    take(ledger)
    assert claim(ledger) is None
    assert ranges.share(ledger, slice_seconds=-1) == []
    verdict = commit(ledger, lease, 1)
    assert (verdict.word, verdict.tickets) == ("continue", ())
    assert running(ledger, spec.id) == 2


@pytest.mark.parametrize("seed", range(5))
def test_never_more_leases_than_places_while_it_changes(ledger: Connection, seed: int) -> None:
    """Claims, commits, losses and changes at random: no claim is given beyond the throttle of that moment."""
    rng = random.Random(seed)
    spec = submit(ledger, 200, ranges=[(1 + 10 * i, 10) for i in range(20)], throttle=3)
    throttle, leases = 3, []
    while not batches.view(ledger, spec.id).ended:
        before = running(ledger, spec.id)
        step = rng.random()
        if step < 0.1:
            throttle = rng.choice([0, 1, 2, 5])
            control.adjust(ledger, spec.id, "throttle", throttle)
        elif step < 0.5:
            lease = claim(ledger)
            assert (lease is not None) <= (not throttle or before < throttle)
            leases += [lease] if lease else []
        elif leases:
            lease = leases.pop(rng.randrange(len(leases)))
            if step < 0.55:
                ranges.reclaim(ledger, [lease.token], crashed=False)
            else:
                verdict = commit(ledger, lease, rng.randint(1, lease.count))
                leases += [after(lease, verdict)] if verdict.word == "continue" else []
        assert_consistent(ledger)
