"""A batch whose simulation no live worker has: it holds nobody up, is not asked for in vain, and runs once it can."""

from pathlib import Path

import pytest

from common import queue
from common.ledger import Connection, batches, keys, ranges, workers
from common.ledger.ranges import Lease
from common.ledger.workers import WorkerInfo
from common.settings import Settings
from common.simulations import registry
from services.worker.board import Board
from services.worker.guard import Guard
from services.worker.housekeeper import Housekeeper
from services.worker.slot import Slot
from tests.conftest import StartWorker
from tests.integration.api_support import MakeClient
from tests.integration.ledger_support import after, commit, submit, take
from tests.support import counted, wait_for

MINE = '''
from batchsim import simulation

@simulation(outputs={"x": float})
def mine(rng):
    """One number."""
    return {"x": float(rng.random())}
'''
NEEDS = {"simulation": "mine", "version": "1"}
ALONE, PLAIN = WorkerInfo("plain", 1, 1, 11), WorkerInfo("plain", 4, 1, 11)
ABLE = WorkerInfo("able", 1, 0, 12, ("default",), ("mine:1",))


def offers(connection: Connection) -> dict[bytes, bytes]:
    """What the live workers can run besides the built-in simulations."""
    found: dict[bytes, bytes] = connection.command("HGETALL", keys.OFFERS)
    return found


def claim_as(worker: str, connection: Connection, *has: str) -> tuple[Lease, tuple[str, ...]]:
    """A worker takes what is first in the line of what it can run."""
    slot = f"{worker}/0"
    lease, parts = ranges.claim(
        connection, (0, ""), worker=worker, slot=slot, lease_seconds=60, slice_seconds=1, simulations=has
    )
    assert lease is not None
    return lease, parts


def claim_as_able(connection: Connection) -> tuple[Lease, tuple[str, ...]]:
    """The worker that has the simulation takes what is first in the line."""
    return claim_as("able", connection, "mine:1")


def test_the_heartbeat_says_what_can_be_run(ledger: Connection) -> None:
    """By partition, with the slots; who leaves, falls silent or drains offers nothing."""
    workers.heartbeat(ledger, PLAIN)
    assert offers(ledger) == {}
    both = WorkerInfo("both", 2, 0, 13, ("default", "gpu"), ("mine:1", "other:2"))
    workers.heartbeat(ledger, ABLE)
    workers.heartbeat(ledger, both)
    assert offers(ledger) == {
        b"default/mine:1": b"3", b"default/other:2": b"2", b"gpu/mine:1": b"2", b"gpu/other:2": b"2"
    }  # fmt: skip
    workers.sign_off(ledger, "both")
    assert offers(ledger) == {b"default/mine:1": b"1"}
    workers.heartbeat(ledger, WorkerInfo("able", 0, 0, 12, ("default",), ("mine:1",)))
    assert offers(ledger) == {}


def test_only_slots_that_can_are_given_parts(ledger: Connection) -> None:
    """Idle slots of a worker that cannot run the batch count for nothing."""
    workers.heartbeat(ledger, PLAIN)
    workers.heartbeat(ledger, WorkerInfo("able", 2, 0, 12, ("default",), ("mine:1",)))
    spec = submit(ledger, 100, ranges=[(1, 100)], **NEEDS)
    ticket = (spec.id, ranges.open_ranges(ledger, spec.id)[0].token)
    lease, parts = ranges.claim(
        ledger, ticket, worker="able", slot="able/0", lease_seconds=60, slice_seconds=1, simulations=["mine:1"]
    )
    assert lease is not None
    assert (lease.count, len(parts)) == (50, 1)


def test_the_others_tail_is_shared(ledger: Connection) -> None:
    """Idle slots get their part of a range although a batch waits that none of them can run; once one can, it waits."""
    workers.heartbeat(ledger, ALONE)
    spec = submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    stuck = submit(ledger, 5, **NEEDS)
    workers.heartbeat(ledger, PLAIN)
    verdict = commit(ledger, lease, 4)
    found = [(part.first, part.count) for part in ranges.tickets(ledger, verdict.tickets)]
    assert (verdict.count, sum(count for _, count in found), len(found)) == (24, 72, 3)
    rest = [take(ledger) for _ in found]
    assert {part.batch for part in rest} == {spec.id}
    workers.heartbeat(ledger, ABLE)
    verdict = commit(ledger, after(lease, verdict), 4)
    # A worker is there now for the one that cannot run here, and is on its way to it.
    assert (verdict.word, verdict.count, verdict.tickets) == ("continue", 20, ())
    assert counted(ledger, stuck.id) == {"PENDING": 5}


@pytest.mark.parametrize("own", [True, False])
def test_the_others_tail_is_shared_while_only_busy_slots_could_run_what_waits(ledger: Connection, own: bool) -> None:
    """The worker that has it is at work, at a range of that batch or of another: the idle slots get their parts."""
    workers.heartbeat(ledger, ABLE)
    if not own:
        submit(ledger, 1)
    else:
        submit(ledger, 1, **NEEDS)
    claim_as_able(ledger)
    waiting = submit(ledger, 1, priority=-1, **NEEDS)
    submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    workers.heartbeat(ledger, PLAIN)
    ledger.command("HSET", keys.leased_range(lease.token), "since", 1)
    tickets = ranges.share(ledger, slice_seconds=1.0)
    # Of five slots two are at work.
    assert [ticket.count for ticket in tickets] == [25, 25, 25]
    assert ranges.share(ledger, slice_seconds=-1.0) == [], "those parts wait for the idle slots"
    assert counted(ledger, waiting.id) == {"PENDING": 1}


def test_a_claim_shares_while_only_its_own_worker_could_run_what_waits(ledger: Connection) -> None:
    """The slot that claims is not one of those that are free."""
    workers.heartbeat(ledger, PLAIN)
    workers.heartbeat(ledger, ABLE)
    submit(ledger, 2, ranges=[(1, 1), (2, 1)], priority=-1, **NEEDS)
    submit(ledger, 100, ranges=[(1, 100)])
    lease, parts = claim_as_able(ledger)
    assert (lease.count, len(parts)) == (20, 4)


def test_nothing_is_shared_while_a_free_slot_could_run_what_waits(ledger: Connection) -> None:
    """Its ticket is on the way; also when another slot of its worker, or of another that has it, is at work."""
    workers.heartbeat(ledger, WorkerInfo("able", 2, 1, 12, ("default",), ("mine:1",)))
    submit(ledger, 2, ranges=[(1, 1), (2, 1)], **NEEDS)
    claim_as_able(ledger)
    submit(ledger, 100, ranges=[(1, 100)], priority=-1)
    lease = take(ledger)
    workers.heartbeat(ledger, PLAIN)
    assert ranges.share(ledger, slice_seconds=-1.0) == []
    workers.heartbeat(ledger, WorkerInfo("able", 1, 1, 12, ("default",), ("mine:1",)))
    other = WorkerInfo("other", 1, 0, 13, ("gpu",), ("mine:1",))
    workers.heartbeat(ledger, other)
    assert lease.count == 100
    assert len(ranges.share(ledger, slice_seconds=-1.0)) == 3, "a worker of another partition takes nothing here"


def test_a_slot_keeps_its_range_beside_it(ledger: Connection) -> None:
    """A batch that cannot run does not take turns with one that can."""
    workers.heartbeat(ledger, ALONE)
    submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    submit(ledger, 5, **NEEDS)
    for _ in range(3):
        verdict = commit(ledger, lease, 4)
        assert verdict.word == "continue"
        lease = after(lease, verdict)


def test_a_slot_gives_way_only_to_what_its_worker_can_run(ledger: Connection) -> None:
    """A batch that has had less time and that others have to run takes no turns from it; one behind that does."""
    workers.heartbeat(ledger, PLAIN)
    workers.heartbeat(ledger, ABLE)
    submit(ledger, 100, ranges=[(1, 100)], priority=-1)
    lease, _ = claim_as("plain", ledger)
    needing = submit(ledger, 100, ranges=[(1, 100)], **NEEDS)
    verdict = commit(ledger, lease, 4)
    assert verdict.word == "continue"
    lease = after(lease, verdict)
    workers.heartbeat(ledger, WorkerInfo("plain", 4, 1, 11, ("default",), ("mine:2",)))
    verdict = commit(ledger, lease, 4)
    assert verdict.word == "continue", "it has another version"
    built_in = submit(ledger, 1, priority=-1)
    assert commit(ledger, after(lease, verdict), 4).word == "released"
    assert counted(ledger, needing.id) == {"PENDING": 100}
    assert counted(ledger, built_in.id) == {"PENDING": 1}


def test_a_slot_gives_way_to_what_its_worker_can_run(ledger: Connection) -> None:
    """The same batches, at a worker that has the simulation."""
    workers.heartbeat(ledger, ABLE)
    submit(ledger, 100, ranges=[(1, 100)], priority=-1)
    lease, _ = claim_as_able(ledger)
    submit(ledger, 100, ranges=[(1, 100)], **NEEDS)
    assert commit(ledger, lease, 4).word == "released"


def test_the_housekeepers_share(ledger: Connection) -> None:
    """The same when the holder is at one long job."""
    workers.heartbeat(ledger, ALONE)
    submit(ledger, 100, ranges=[(1, 100)])
    lease = take(ledger)
    submit(ledger, 5, **NEEDS)
    workers.heartbeat(ledger, PLAIN)
    ledger.command("HSET", keys.leased_range(lease.token), "since", 1)
    assert sum(part.count for part in ranges.share(ledger, slice_seconds=1.0)) == 75


def test_its_tickets_are_not_owed(ledger: Connection, redis_url: str, root: Path) -> None:
    """However many rounds the housekeeper makes; those of the other batch are, and its own once somebody can run it."""
    app = queue.make_app(redis_url)
    keeper = Housekeeper(ledger, app, "w", root, lease_seconds=60, slice_seconds=1, clock=lambda: 1.0)
    workers.heartbeat(ledger, PLAIN)
    submit(ledger, 7, **NEEDS)
    for _ in range(5):
        keeper.sweep()
    assert ledger.command("LLEN", queue.QUEUE) == 0
    submit(ledger, 3)
    for _ in range(5):
        keeper.sweep()
    assert ledger.command("LLEN", queue.QUEUE) == 3
    workers.heartbeat(ledger, ABLE)
    for _ in range(5):
        keeper.sweep()
    assert ledger.command("LLEN", queue.QUEUE) == 10
    app.close()


def test_a_ticketless_claim(ledger: Connection) -> None:
    """Is given only what others take the tickets of; not when all slots can run it, nor what needs nothing special."""

    def claim_without() -> int:
        lease, _ = ranges.claim(
            ledger, None, worker="able", slot="able/0", lease_seconds=60, slice_seconds=1, simulations=["mine:1"]
        )
        return lease.batch if lease else 0

    workers.heartbeat(ledger, ABLE)
    submit(ledger, 5)
    assert claim_without() == 0
    spec = submit(ledger, 5, priority=1, **NEEDS)
    assert claim_without() == 0
    workers.heartbeat(ledger, PLAIN)
    assert [claim_without() for _ in range(6)] == [spec.id] * 5 + [0]


def test_a_file_that_changes_between_claim_and_run(
    ledger: Connection, redis_url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot gives the range back, unharmed and at once, and goes on with what it can run."""
    monkeypatch.setattr(Guard, "install", lambda _guard: None)
    monkeypatch.setattr(registry, "capabilities", lambda: ["random_numbers:of-yesterday"])
    spec = submit(ledger, 3, version="of-yesterday", ranges=[(1, 3)])
    app = queue.make_app(redis_url)
    given = Settings(_env_file=None, redis_url=redis_url, output_dir=root)  # type: ignore[call-arg]
    slot = Slot(given, app, Board.create(root.parent / "board", 1), "w", 0)
    slot.serve(spec.id, "", "default")
    slot.serve(spec.id, "", "default")
    assert counted(ledger, spec.id) == {"PENDING": 3}
    assert batches.view(ledger, spec.id).crashes == 0
    assert ledger.command("ZCARD", keys.LEASES) == 0
    app.close()


def test_on_real_workers(connection: Connection, make_client: MakeClient, place: Path, worker: StartWorker) -> None:
    """The worker that lacks it is not sent tickets for nothing, and runs the other; then one comes that has it."""
    lacking = worker(slots=2)
    client = make_client(simulations_dir=str(place))
    stuck = client.post("/batches", json={"jobs": 6, "simulation": "mine"}).get_json()["id"]
    other = client.post("/batches", json={"jobs": 400, "job_seconds": 0.01}).get_json()["id"]
    wait_for(lambda: counted(connection, other) == {"COMPLETED": 400}, 60, "the end", lacking.text)
    # Its rounds come twice a second: enough of them to publish what is owed, if there were any.
    rounds = connection.command("GET", keys.HOUSEKEEPER)
    assert rounds is not None
    assert "tickets.owed" not in lacking.text()
    assert counted(connection, stuck) == {"PENDING": 6}
    worker(SIMULATIONS_DIR=place)
    wait_for(lambda: counted(connection, stuck) == {"COMPLETED": 6}, 30, "the end", lacking.text)


def test_beside_slots_that_take_its_tickets(
    connection: Connection, make_client: MakeClient, place: Path, worker: StartWorker
) -> None:
    """A slot that can run it goes on to its next range, instead of waiting until its ticket is paid once more."""
    lacking, able = worker(slots=3), worker(SIMULATIONS_DIR=place)
    client = make_client(simulations_dir=str(place))
    batch = client.post("/batches", json={"jobs": 60, "simulation": "mine"}).get_json()["id"]
    wait_for(lambda: counted(connection, batch) == {"COMPLETED": 60}, 60, "the end", able.text)
    # One payment may be needed to wake the slot up; without that rule it takes one for each range or two.
    assert (lacking.text() + able.text()).count("tickets.owed") <= 5
