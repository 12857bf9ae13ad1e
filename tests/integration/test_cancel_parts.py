"""Parts of a batch are cancelled: exactly the jobs that were named, wherever their ranges are, at a constant cost."""

import itertools
from collections.abc import Callable

import pytest

from common.batch import BatchSpec, JobState, Reason
from common.ledger import Connection, batches, control, keys, ranges, table
from common.ledger.table import record_dtype
from tests.integration.ledger_support import (
    assert_consistent,
    commit,
    make_due,
    run_all,
    spans,
    states,
    submit,
    take,
)
from tests.integration.test_cancel import commands
from tests.support import OUTPUTS, counted, dump

JOBS = 6
INTERVALS = [(a, b) for a, b in itertools.product(range(1, JOBS + 1), repeat=2) if a <= b]


def cancelled(connection: Connection, batch: int) -> list[int]:
    """The jobs that are CANCELLED."""
    return [index for index, state in enumerate(states(connection, batch), 1) if state == "CANCELLED"]


def waiting(connection: Connection) -> BatchSpec:
    """A batch of one range that waits."""
    return submit(connection, JOBS, ranges=[(1, JOBS)])


def parked(connection: Connection) -> BatchSpec:
    """A batch of one range that is parked."""
    spec = submit(connection, JOBS, ranges=[(1, JOBS)], retries=1)
    commit(connection, take(connection), JOBS, retried=list(range(1, JOBS + 1)))
    assert spans(connection, keys.parked(spec.id)) == [(1, JOBS)]
    return spec


def blocked(connection: Connection) -> BatchSpec:
    """A batch of one range that follows another one."""
    followed = submit(connection, JOBS, hold=True)
    spec = submit(connection, JOBS, ranges=[(1, JOBS)], dependency=(("aftercorr", followed.id),))
    assert spans(connection, keys.blocked(spec.id)) == [(1, JOBS)]
    return spec


def leased(connection: Connection) -> BatchSpec:
    """A batch of one range that a slot holds."""
    spec = waiting(connection)
    take(connection)
    return spec


@pytest.mark.parametrize("make", [waiting, parked, blocked, leased])
@pytest.mark.parametrize(("first", "last"), INTERVALS)
def test_any_part_of_a_range(
    ledger: Connection, make: Callable[[Connection], BatchSpec], first: int, last: int
) -> None:
    """Exactly the named jobs are CANCELLED; what is left is still where it was, but for what its holder lost."""
    spec = make(ledger)
    done, _ = control.cancel(ledger, spec.id, first, last)
    assert done == last - first + 1
    assert cancelled(ledger, spec.id) == list(range(first, last + 1))
    assert counted(ledger, spec.id)["CANCELLED"] == done
    assert_consistent(ledger)
    place = {waiting: keys.ranges, parked: keys.parked, blocked: keys.blocked}.get(make)
    left = [(low, high - low + 1) for low, high in ((1, first - 1), (last + 1, JOBS)) if low <= high]
    if place is not None:
        assert sorted(spans(ledger, place(spec.id))) == left
    else:
        kept = [(1, first - 1)] if first > 1 else []
        assert spans(ledger, keys.LEASES) == kept
        assert spans(ledger, keys.ranges(spec.id)) == [span for span in left if span not in kept]


@pytest.mark.parametrize(("first", "last"), INTERVALS)
def test_the_holder_of_a_cut_range(ledger: Connection, first: int, last: int) -> None:
    """Its commit of all is refused or told what is left; every other job is run by somebody, once."""
    spec = waiting(ledger)
    lease = take(ledger)
    control.cancel(ledger, spec.id, first, last)
    verdict = commit(ledger, lease, JOBS)
    if first == 1:
        assert verdict.word == "stale"
    else:
        assert (verdict.word, verdict.count) == ("shrunk", first - 1)
        assert commit(ledger, lease, first - 1).word == "done"
    rest = run_all(ledger)
    assert rest == list(range(last + 1, JOBS + 1))
    assert counted(ledger, spec.id) == (
        {"CANCELLED": last - first + 1, "COMPLETED": JOBS - (last - first + 1)}
        if last - first + 1 < JOBS
        else {"CANCELLED": JOBS}
    )
    assert batches.view(ledger, spec.id).ended


def everywhere(connection: Connection) -> BatchSpec:
    """Jobs 1-5 leased, 6-10 parked, 11 completed, 12-20 waiting."""
    spec = submit(connection, 20, ranges=[(1, 5), (6, 6), (12, 9)], retries=1)
    take(connection)
    commit(connection, take(connection), 6, retried=range(6, 11))
    return spec


@pytest.mark.parametrize(
    ("state", "which"),
    [("", [*range(3, 11), *range(12, 16)]), ("PENDING", [*range(3, 11), *range(12, 16)]), ("RUNNING", [])],
)
def test_across_ranges_of_all_kinds(ledger: Connection, state: str, which: list[int]) -> None:
    """One interval over leased, parked, completed and waiting jobs: those that have not ended, and match."""
    spec = everywhere(ledger)
    assert control.cancel(ledger, spec.id, 3, 15, state=state)[0] == len(which)
    assert cancelled(ledger, spec.id) == which


@pytest.mark.parametrize(("state", "which"), [("PENDING", [*range(2, 11), *range(12, 21)]), ("RUNNING", [1])])
def test_only_those_in_a_state(ledger: Connection, state: str, which: list[int]) -> None:
    """RUNNING are the heads of the leased ranges, PENDING all the others that have not ended."""
    spec = everywhere(ledger)
    assert control.cancel(ledger, spec.id, state=state)[0] == len(which)
    assert cancelled(ledger, spec.id) == which
    assert_consistent(ledger)
    make_due(ledger, spec.id)
    ranges.release(ledger)
    left = set(range(1, 21)) - set(which) - {11}
    leased_now = {index for first, count in spans(ledger, keys.LEASES) for index in range(first, first + count)}
    assert set(run_all(ledger)) | leased_now == left


def test_cancelling_all_in_parts_ends_the_batch(ledger: Connection) -> None:
    """Whichever part comes last, the batch has ended then, once, and not before."""
    spec = everywhere(ledger)
    assert [control.cancel(ledger, spec.id, *part)[0] for part in ((12, 20), (1, 3), (8, 11), (2, 7))] == [9, 3, 3, 4]
    assert counted(ledger, spec.id) == {"COMPLETED": 1, "CANCELLED": 19}
    assert batches.view(ledger, spec.id).state == "CANCELLED"
    before = dump(ledger)
    assert control.cancel(ledger, spec.id) == (0, [])
    assert dump(ledger) == before


def test_a_part_outside_of_the_batch_is_nothing(ledger: Connection) -> None:
    """Jobs that do not exist are not cancelled, and cost no counter."""
    spec = waiting(ledger)
    before = dump(ledger)
    assert control.cancel(ledger, spec.id, JOBS + 1, JOBS + 100)[0] == 0
    assert dump(ledger) == before


def test_tickets_of_the_parts_are_for_what_is_left(ledger: Connection) -> None:
    """Each new range behind a cut has a ticket to publish."""
    spec = waiting(ledger)
    _, tickets = control.cancel(ledger, spec.id, 3, 4)
    assert [(ticket.first, ticket.count) for ticket in tickets] == [(5, 2)]
    assert [ticket.partition for ticket in tickets] == ["default"]


def test_cancelled_jobs_have_no_reason_and_an_event(ledger: Connection) -> None:
    """Nobody but a person did it."""
    spec = waiting(ledger)
    control.cancel(ledger, spec.id, 2, 3)
    page = table.page(ledger, spec.id, 1, JOBS, record_dtype(OUTPUTS))
    assert page["state"].tolist() == [0, JobState.CANCELLED, JobState.CANCELLED, 0, 0, 0]
    assert set(page["reason"]) == {Reason.NONE}
    [event] = control.events(ledger, spec.id)
    assert (event["kind"].strip(), event["first"], event["count"]) == ("CANCELLED", 2, 2)


def test_the_cost_does_not_depend_on_the_jobs(ledger: Connection) -> None:
    """Cancelling all but the ends of a batch takes as many commands for 1,000,000 jobs as for 10."""
    # The server may have yet to be told the script.
    control.cancel(ledger, 99)
    costs = []
    for jobs in (10, 1_000_000):
        spec = submit(ledger, jobs, ranges=[(1, jobs // 2), (jobs // 2 + 1, jobs - jobs // 2)])
        take(ledger, spec.id)
        before = commands(ledger)
        assert control.cancel(ledger, spec.id, 2, jobs - 1)[0] == jobs - 2
        costs.append(commands(ledger) - before)
        ledger.command("FLUSHALL")
    assert costs[0] == costs[1]


SCATTERED = [
    [(2, 2), (4, 4), (6, 6)],
    [(1, 1), (3, 8), (10, 10), (14, 15), (19, 20)],
    [(1, 20)],
    [(5, 6), (11, 12), (20, 99)],
]


@pytest.mark.parametrize("state", ["", "PENDING", "RUNNING"])
@pytest.mark.parametrize("spans", SCATTERED, ids=str)
def test_several_spans_in_one_step_are_as_one_after_the_other(
    ledger: Connection, spans: list[tuple[int, int]], state: str
) -> None:
    """Whatever ranges they meet, and one range several of them; the step is told once, with the spans."""
    one = everywhere(ledger)
    want = sum(control.cancel(ledger, one.id, *span, state=state)[0] for span in spans)
    wanted = states(ledger, one.id)
    ledger.command("FLUSHALL")
    other = everywhere(ledger)
    done, _ = control.cancel_spans(ledger, other.id, spans, state=state)
    assert (done, states(ledger, other.id)) == (want, wanted)
    events = [event for event in control.events(ledger, other.id) if event["kind"].startswith("CANCELLED")]
    assert len(events) == bool(done)
    named = {index for first, last in spans for index in range(first, min(last, 20) + 1)}
    for event in events:
        assert {index for index in range(1, 21) if control.happened_to(event, index)} == named
    assert_consistent(ledger)


def test_the_tickets_of_several_spans_are_for_what_is_left(ledger: Connection) -> None:
    """Of one waiting range and three holes in it: what is behind each."""
    spec = waiting(ledger)
    done, tickets = control.cancel_spans(ledger, spec.id, [(1, 1), (3, 3), (5, 5)])
    assert done == 3
    assert sorted((ticket.first, ticket.count) for ticket in tickets) == [(2, 1), (4, 1), (6, 1)]
    assert sorted(run_all(ledger)) == [2, 4, 6]


@pytest.mark.parametrize("held", [False, True])
def test_scattered_jobs_cost_what_they_are_many(ledger: Connection, held: bool) -> None:
    """Twice as many spans take about twice as many commands, not four times."""
    costs = []
    for many in (200, 400):
        spec = submit(ledger, 2 * many + 1, ranges=[(1, 2 * many + 1)])
        if held:
            take(ledger, spec.id)
        before = commands(ledger)
        assert control.cancel_spans(ledger, spec.id, [(2 * i, 2 * i) for i in range(1, many + 1)])[0] == many
        costs.append(commands(ledger) - before)
        ledger.command("FLUSHALL")
    assert costs[1] < 2.2 * costs[0]


@pytest.mark.parametrize("place", ["waiting", "parked", "blocked"])
def test_a_range_that_goes_as_a_whole_costs_one_look_at_it(ledger: Connection, place: str) -> None:
    """Of very many ranges, as after a requeue of scattered jobs, each costs one command, wherever they are."""
    costs = []
    for many in (5000, 10_000):
        spec = scattered(ledger, many, place)
        before = commands(ledger)
        assert control.cancel(ledger, spec.id)[0] == many
        costs.append(commands(ledger) - before)
        assert counted(ledger, spec.id) == {"COMPLETED": many, "CANCELLED": many}
        ledger.command("FLUSHALL")
    assert costs[1] - costs[0] < 1.1 * 5000


def scattered(connection: Connection, many: int, place: str) -> BatchSpec:
    """A batch of so many ranges of one job each, in this set; between any two of them a job has completed."""
    spec = BatchSpec(1, 2 * many, 1)
    ranges_of_one = [(first, 1) for first in range(1, 2 * many, 2)]
    batches.submit(connection, spec, ranges=ranges_of_one, completed=many)
    if place != "waiting":
        # As if they had failed and were tried again, or followed another batch.
        connection.command("RENAME", keys.ranges(spec.id), getattr(keys, place)(spec.id))
    return spec


def test_neighbours_are_noted_as_one(ledger: Connection) -> None:
    """Whatever the order in which their ranges wait; what is between them is not."""
    spec = submit(ledger, 9, ranges=[(7, 3), (1, 2), (3, 4)])
    assert control.cancel_spans(ledger, spec.id, [(1, 3), (5, 99)])[0] == 8
    assert sorted((each.first, each.count) for each in table.closed(ledger, spec.id)) == [(1, 3), (5, 5)]
    assert [(each.first, each.count) for each in table.closed(ledger, spec.id, 4, 2)] == [(5, 5)]
    assert table.closed(ledger, spec.id, 4, 1) == []
