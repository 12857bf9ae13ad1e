"""A higher priority goes first, at the next job boundary; within one the slots are shared fairly."""

import pytest

from common.ledger import Connection, control, keys
from tests.integration.ledger_support import (
    after,
    assert_consistent,
    claim,
    commit,
    run_all,
    submit,
    take,
)
from tests.support import counted, dump

# More than are run, each of one job.
RANGES = [(first, 1) for first in range(1, 301)]


def order(connection: Connection) -> list[int]:
    """Whose jobs are run, one after the other."""
    served = []
    while (lease := claim(connection)) is not None:
        commit(connection, lease, lease.count)
        served.append(lease.batch)
    return served


def test_the_higher_priority_is_served_first(ledger: Connection) -> None:
    """Whatever came first, and however much it had already."""
    low, high, middle = (submit(ledger, 3, priority=p) for p in (-5, 100, 0))
    assert order(ledger) == [high.id] * 3 + [middle.id] * 3 + [low.id] * 3


@pytest.mark.parametrize("seconds", [1.0, 1e6])
def test_no_service_time_outweighs_a_priority(ledger: Connection, seconds: float) -> None:
    """A batch that had weeks of slots still goes before a fresh one with a lower priority."""
    high, low = submit(ledger, 5, priority=1), submit(ledger, 5, priority=0)
    commit(ledger, take(ledger), 1, seconds=seconds)
    assert order(ledger) == [high.id] * 4 + [low.id] * 5


def test_a_slot_makes_way_at_its_next_commit(ledger: Connection) -> None:
    """A batch with a higher priority need not wait until a long range ends."""
    low = submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    lease = after(lease, commit(ledger, lease, 1))
    high = submit(ledger, 1, priority=1)
    assert commit(ledger, lease, 1).word == "released"
    assert take(ledger).batch == high.id
    assert counted(ledger, low.id) == {"COMPLETED": 2, "PENDING": 98}


def test_a_slot_does_not_make_way_for_a_lower_one(ledger: Connection) -> None:
    """However little of the slots the lower one had."""
    submit(ledger, 100, ranges=[(1, 100)], priority=1)
    lease = take(ledger)
    submit(ledger, 1)
    for _ in range(5):
        verdict = commit(ledger, lease, 1, seconds=100.0)
        assert verdict.word == "continue"
        lease = after(lease, verdict)


def test_a_changed_priority_is_obeyed_by_the_next_claim(ledger: Connection) -> None:
    """Up and down again, and counted as the batch's own."""
    one, two = submit(ledger, 6), submit(ledger, 6)
    commit(ledger, take(ledger), 1)
    control.adjust(ledger, two.id, "priority", 10)
    assert_consistent(ledger)
    assert [take(ledger).batch for _ in range(3)] == [two.id] * 3
    control.adjust(ledger, two.id, "priority", -10)
    assert [take(ledger).batch for _ in range(3)] == [one.id] * 3


def test_the_same_priority_is_shared_fairly(ledger: Connection) -> None:
    """Two batches of one priority get half of the slots each, whatever a third, lower one wants."""
    a, b = (submit(ledger, 60, priority=7) for _ in range(2))
    submit(ledger, 60)
    served = [commit_one(ledger) for _ in range(60)]
    assert abs(served.count(a.id) - served.count(b.id)) <= 2
    assert set(served) == {a.id, b.id}


def commit_one(connection: Connection) -> int:
    """One job; returns whose."""
    lease = take(connection)
    commit(connection, lease, 1)
    return lease.batch


def test_a_newcomer_of_a_priority_starts_where_that_priority_is(ledger: Connection) -> None:
    """It cannot claim the time before it came, whatever other priorities had meanwhile."""
    old = submit(ledger, 60, priority=1)
    for _ in range(20):
        commit_one(ledger)
    new = submit(ledger, 60, priority=1)
    served = [commit_one(ledger) for _ in range(20)]
    assert abs(served.count(old.id) - served.count(new.id)) <= 2


@pytest.mark.parametrize(("busy", "idle"), [(0, 5), (5, 0)])
def test_who_changes_its_priority_gets_its_part_there(ledger: Connection, busy: int, idle: int) -> None:
    """However much, or little, it had at the other; also when another comes after it."""
    moved, there = submit(ledger, 300, ranges=RANGES, priority=busy), submit(ledger, 300, ranges=RANGES, priority=idle)
    control.adjust(ledger, there.id, "held", 1)
    assert {commit_one(ledger) for _ in range(100)} == {moved.id}
    control.adjust(ledger, moved.id, "priority", idle)
    control.adjust(ledger, there.id, "held", 0)
    served = [commit_one(ledger) for _ in range(20)]
    assert abs(served.count(moved.id) - served.count(there.id)) <= 2
    new = submit(ledger, 300, ranges=RANGES, priority=idle)
    served = [commit_one(ledger) for _ in range(30)]
    assert all(8 <= served.count(spec.id) <= 12 for spec in (moved, there, new)), served


def test_who_changes_its_priority_to_where_nobody_was(ledger: Connection) -> None:
    """It starts that priority's time, and shares it with who comes later."""
    first = submit(ledger, 300, ranges=RANGES)
    served = [commit_one(ledger) for _ in range(50)]
    control.adjust(ledger, first.id, "priority", 3)
    served = [commit_one(ledger) for _ in range(50)]
    assert set(served) == {first.id}
    second = submit(ledger, 300, ranges=RANGES, priority=3)
    served = [commit_one(ledger) for _ in range(20)]
    assert abs(served.count(first.id) - served.count(second.id)) <= 2


def test_the_same_priority_again_changes_nothing(ledger: Connection) -> None:
    """What the batch has had is still counted."""
    spec = submit(ledger, 300, ranges=RANGES, priority=3)
    for _ in range(5):
        commit_one(ledger)
    before = dump(ledger)
    assert control.adjust(ledger, spec.id, "priority", 3) == []
    assert dump(ledger) == before


def test_priorities_are_no_matter_of_order_in_the_end(ledger: Connection) -> None:
    """Everything runs."""
    specs = [submit(ledger, 4, priority=p) for p in (-100, 100, 0, 3)]
    assert len(run_all(ledger)) == 16
    assert all(counted(ledger, spec.id) == {"COMPLETED": 4} for spec in specs)
    assert ledger.command("ZCARD", keys.waiting("default")) == 0
