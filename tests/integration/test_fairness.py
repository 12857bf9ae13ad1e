"""Batches share the slots' time, and slots share a long range."""

import itertools

import pytest

from common.ledger import Connection, batches, control, keys, ranges
from common.ledger.ranges import Lease, Verdict
from tests.integration.ledger_support import after, claim, commit, submit, take
from tests.support import counted, dump, wait_for


def test_two_batches_share_the_slots_fairly(connection: Connection) -> None:
    """A small batch that comes second is not kept waiting: of the slots' time each gets half while both have work."""
    big, small = submit(connection, 64 * 50, slots=64), None
    served: list[int] = []
    held: list[Lease] = [take(connection) for _ in range(4)]
    for step in range(200):
        if step == 20:
            small = submit(connection, 64 * 50, slots=64)
        lease = held.pop(0)
        served.append(lease.batch)
        verdict = commit(connection, lease, 1)
        held.append(after(lease, verdict) if verdict.word == "continue" else take(connection))
    assert small is not None
    window = served[40:]
    share = window.count(small.id) / len(window)
    assert 0.4 < share < 0.6, served
    assert set(served[:20]) == {big.id}
    for batch in (big, small):
        counted(connection, batch.id)


def test_long_jobs_do_not_win(connection: Connection) -> None:
    """Time is shared, not turns: a batch of jobs five times as long gets a fifth of the turns."""
    slow, quick = submit(connection, 64 * 50, slots=64), submit(connection, 64 * 50, slots=64)
    seconds = {slow.id: 0.0, quick.id: 0.0}
    lease = take(connection)
    for _ in range(300):
        used = 5.0 if lease.batch == slow.id else 1.0
        seconds[lease.batch] += used
        verdict = commit(connection, lease, 1, seconds=used)
        lease = after(lease, verdict) if verdict.word == "continue" else take(connection)
    assert seconds[slow.id] == pytest.approx(seconds[quick.id], rel=0.2)


def kept(connection: Connection, lease: Lease, slices: int) -> Lease:
    """The lease after so many slices in which nobody else waited for its slot."""
    for _ in range(slices):
        verdict = commit(connection, lease, 1)
        assert verdict.word == "continue"
        lease = after(lease, verdict)
    return lease


def served_next(connection: Connection, held: list[Lease], slices: int) -> list[int]:
    """Whose slices these slots run next, one after the other."""
    served = []
    for _ in range(slices):
        lease = held.pop(0)
        served.append(lease.batch)
        verdict = commit(connection, lease, 1)
        held.append(after(lease, verdict) if verdict.word == "continue" else take(connection))
    return served


def test_a_newcomer_is_not_owed_what_passed_without_a_claim(ledger: Connection) -> None:
    """A slot that keeps its range counts as much as one that claims: who comes then gets half, and not all."""
    old = submit(ledger, 1000, ranges=[(1, 1000)])
    held = [kept(ledger, take(ledger), 300)]
    new = submit(ledger, 1000, ranges=[(1, 1000)])
    served = served_next(ledger, held, 100)
    assert set(served) == {old.id, new.id}
    assert 45 <= served.count(new.id) <= 55


def test_a_newcomer_beside_several_batches(ledger: Connection) -> None:
    """Also when one of them had less of the slots because it asked for no more: each gets a third."""
    wide = submit(ledger, 3000, ranges=[(1, 1000), (1001, 1000), (2001, 1000)])
    narrow = submit(ledger, 3000, ranges=[(1, 1000), (1001, 1000), (2001, 1000)], throttle=1)
    held = [take(ledger) for _ in range(4)]
    for _ in range(100):
        held = [kept(ledger, lease, 1) for lease in held]
    assert sorted(lease.batch for lease in held) == [wide.id] * 3 + [narrow.id]
    control.adjust(ledger, narrow.id, "throttle", 0)
    new = submit(ledger, 3000, ranges=[(1, 1000), (1001, 1000), (2001, 1000)])
    served = served_next(ledger, held, 300)
    assert all(85 <= served.count(batch.id) <= 115 for batch in (wide, narrow, new)), served


def test_the_clock_does_not_go_back(ledger: Connection) -> None:
    """A batch whose turn came late, for want of a worker that can run it, makes no newcomer start so early."""
    rare = submit(ledger, 1000, ranges=[(1, 500), (501, 500)], simulation="mine", version="1")
    old = submit(ledger, 1000, ranges=[(1, 1000)])
    held = [kept(ledger, take(ledger), 300)]
    ranges.claim(
        ledger, (rare.id, ""), worker="able", slot="able/0", lease_seconds=60, slice_seconds=1, simulations=["mine:1"]
    )
    new = submit(ledger, 1000, ranges=[(1, 1000)])
    served = served_next(ledger, held, 100)
    assert set(served) == {old.id, new.id}
    assert 45 <= served.count(new.id) <= 55


def pieces_of(connection: Connection, verdict: Verdict) -> list[tuple[int, int]]:
    """The ranges behind the tickets that a commit hands out."""
    found = [ranges.lookup(connection, token) for token in verdict.tickets]
    return sorted((ticket.first, ticket.count) for ticket in found if ticket)


def test_commit_shares_with_idle_slots(connection: Connection) -> None:
    """With nothing waiting, the rest of a range is cut into equal parts for the holder and the idle slots."""
    spec = submit(connection, 1000, slots=1)
    leases = list(iter(lambda: claim(connection), None))
    for lease in leases[1:]:
        commit(connection, lease, lease.count)
    connection.command("HSET", keys.PARTITION_SLOTS, "default", 4)
    lease = leases[0]
    verdict = commit(connection, lease, 5)
    parts = [(verdict.first, verdict.count), *pieces_of(connection, verdict)]
    assert len(parts) == 4
    assert parts[0][0] == lease.first + 5
    assert all(a + c == b for (a, c), (b, _) in itertools.pairwise(parts))
    assert sum(count for _, count in parts) == lease.count - 5
    assert max(count for _, count in parts) - min(count for _, count in parts) <= 1
    counted(connection, spec.id)
    drain_with(connection, after(lease, verdict))
    assert counted(connection, spec.id) == {"COMPLETED": 1000}


def drain_with(connection: Connection, lease: Lease) -> None:
    """Complete this lease and all that waits."""
    verdict = commit(connection, lease, lease.count)
    assert verdict.word == "done"
    drain(connection, lease.batch)


def drain(connection: Connection, batch: int) -> None:
    """Claim and complete all that waits."""
    while (lease := claim(connection)) is not None:
        commit(connection, lease, lease.count)
    assert batches.view(connection, batch).ended


def test_share_takes_the_end_of_a_long_jobs_range(connection: Connection) -> None:
    """Slots that idle beside a long job get the end of its range; its holder may commit only what is left to it."""
    spec = submit(connection, 100, slots=1)
    leases = list(iter(lambda: claim(connection), None))
    for lease in leases[1:]:
        commit(connection, lease, lease.count)
    lease = leases[0]
    assert ranges.share(connection, slice_seconds=0.0) == []
    connection.command("HSET", keys.PARTITION_SLOTS, "default", 2)
    assert ranges.share(connection, slice_seconds=1000.0) == []
    wait_for(lambda: ranges.share(connection, slice_seconds=0.0), 5, "the sharing of a range")
    counted(connection, spec.id)
    found = ranges.lookup(connection, lease.token)
    assert found is not None
    assert 0 < found.count < lease.count
    before = dump(connection)
    verdict = commit(connection, lease, lease.count)
    assert (verdict.word, verdict.first, verdict.count) == ("shrunk", lease.first, found.count)
    assert dump(connection) == before
    drain_with(connection, Lease(lease.token, lease.batch, lease.first, found.count))
    assert counted(connection, spec.id) == {"COMPLETED": 100}


@pytest.mark.parametrize("why", ["at its last job", "no other slot can run it", "throttled"])
def test_what_cannot_be_shared_keeps_nothing_else_from_it(ledger: Connection, why: str) -> None:
    """The longest range is such a one: slots that are idle get the end of the next."""
    needs = {"simulation": "mine", "version": "1"} if why == "no other slot can run it" else {}
    long = submit(ledger, 1000, ranges=[(1, 1000)], throttle=int(why == "throttled"), **needs)
    short = submit(ledger, 10, ranges=[(1, 10)])
    held = {}
    for spec, has in ((long, ["mine:1"]), (short, [])):
        lease, _ = ranges.claim(
            ledger, (spec.id, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1, simulations=has
        )
        assert lease is not None
        held[lease.batch] = lease
    at = {held[long.id].token: 1000 if why == "at its last job" else 1, held[short.id].token: 1}
    ranges.renew(ledger, at, lease_seconds=60)
    ledger.command("HSET", keys.PARTITION_SLOTS, "default", 4)
    tickets = wait_for(lambda: ranges.share(ledger, slice_seconds=0.0), 30, "the sharing of a range")
    assert {ticket.batch for ticket in tickets} == {short.id}
    # In three parts, of which the holder keeps one.
    assert sum(ticket.count for ticket in tickets) == 6


def test_the_range_with_the_most_behind_its_job_is_shared(ledger: Connection) -> None:
    """Not the one with the most jobs, which are done but not committed yet."""
    done, begun = submit(ledger, 1000, ranges=[(1, 1000)]), submit(ledger, 100, ranges=[(1, 100)])
    held = {lease.batch: lease for lease in (take(ledger), take(ledger))}
    ranges.renew(ledger, {held[done.id].token: 990, held[begun.id].token: 1}, lease_seconds=60)
    ledger.command("HSET", keys.PARTITION_SLOTS, "default", 3)
    tickets = wait_for(lambda: ranges.share(ledger, slice_seconds=0.0), 30, "the sharing of a range")
    assert {ticket.batch for ticket in tickets} == {begun.id}
