"""The slot board, the worker's health check, and the housekeeper's patience."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import queue
from common.ledger import keys
from services.worker import health, housekeeper
from services.worker.board import Board, SlotEntry
from services.worker.housekeeper import Housekeeper

TOKENS = st.from_regex(r"[0-9]{1,10}-[0-9a-f]{8}-[0-9]{1,12}", fullmatch=True)


def test_board_round_trip(tmp_path: Path) -> None:
    """Another process's view of the file sees what a slot wrote, and only in its entry."""
    ours, theirs = Board.create(tmp_path / "b", 3), Board(tmp_path / "b", 3)
    assert [(entry.pid, entry.token) for entry in theirs.entries()] == [(0, "")] * 3
    ours.write(1, 4_000_000, "7-0a1b2c3d-99")
    assert theirs.entries() == [SlotEntry(0, 0, ""), SlotEntry(1, 4_000_000, "7-0a1b2c3d-99"), SlotEntry(2, 0, "")]
    ours.close()
    theirs.close()


@given(TOKENS, TOKENS)
def test_board_keeps_nothing_of_a_longer_token(tmp_path_factory: pytest.TempPathFactory, one: str, other: str) -> None:
    """A shorter token, or none, replaces a longer one completely."""
    board = Board.create(tmp_path_factory.mktemp("board") / "b", 1)
    for token in (one, other, ""):
        board.write(0, 5, token)
        assert board.read(0).token == token
    board.close()


def test_board_keeps_what_a_predecessor_left(tmp_path: Path) -> None:
    """A new process of the same slot finds the dead one's range, also when billiard counted its index on."""
    Board.create(tmp_path / "b", 2).write(1, 123, "token")
    board = Board(tmp_path / "b", 2)
    assert (board.read(1).pid, board.read(1).token) == (123, "token")
    assert board.read(3).token == "token"
    board.close()


def test_board_drain_is_seen_by_all(tmp_path: Path) -> None:
    """Draining is asked for once and touches no slot's entry."""
    ours, theirs = Board.create(tmp_path / "b", 2), Board(tmp_path / "b", 2)
    ours.write(0, 77, "t")
    assert not theirs.draining
    ours.drain()
    assert theirs.draining
    assert theirs.read(0).token == "t"
    ours.close()
    theirs.close()


GOOD = {"at": 1000.0, "out_of_touch_seconds": 2.0, "loop_seconds": 0.2, "not_consuming_seconds": 0.0, "draining": False}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"at": 986.0}, ""),
        ({"at": 984.0}, "old"),
        ({"loop_seconds": 16.0}, "stood still"),
        ({"out_of_touch_seconds": 16.0}, "Redis has not answered for 16 s"),
        ({"not_consuming_seconds": 11.0}, "idle"),
    ],
)
def test_health_names_the_problem(tmp_path: Path, change: dict[str, float], word: str) -> None:
    """A stale status, a standing loop and idle slots beside a full queue are each told apart."""
    path = tmp_path / "status"
    path.write_text(json.dumps(GOOD | change))
    found = health.problem(path, 1001.0 - 1.0)
    assert bool(found) == bool(word)
    assert word in found


@pytest.mark.parametrize("text", [None, "", "{", "null", "[]", "{}"])
def test_health_without_a_status(tmp_path: Path, text: str | None) -> None:
    """A missing or broken status is a problem, not a traceback."""
    path = tmp_path / "status"
    if text is not None:
        path.write_text(text)
    assert health.problem(path, 0.0)


class FakeLedger:
    """Answers the scripts that a sweep runs; ``waiting`` ranges, ``queued`` messages, ``expired`` leases."""

    def __init__(self) -> None:
        self.waiting = self.queued = 0
        self.expired: list[Any] = []
        self.shared: list[Any] = []
        self.due: list[Any] = []
        self.reclaims = 0
        self.holder = b"me"

    def run(self, script: str, _keys: list[str], _args: list[Any]) -> list[Any]:
        """One script."""
        if script == "owed":
            return [self.waiting, self.queued]
        if script == "reclaim":
            self.reclaims += 1
        kept = {"share": self.shared, "reclaim": self.expired, "release": self.due}[script]
        found = list(kept)
        kept.clear()
        return found

    def many(self, commands: list[Any]) -> list[list[bytes]]:
        """What a ticket says of its range."""
        return [[b"1", b"5", b"2", b"default"] for _ in commands]

    def command(self, word: str, key: str, *_words: Any) -> object:
        """The housekeeper's lock and the partitions; there is nothing else to look after."""
        if key == keys.PARTITIONS:
            return [b"default"]
        if key != keys.HOUSEKEEPER:
            return []
        return self.holder if word == "GET" else None


class Sweeps:
    """A housekeeper named ``me`` with a fake ledger, a fake clock, and the numbers of tickets that it published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger, self.now, self.published = FakeLedger(), 100.0, 0
        monkeypatch.setattr(queue, "publish", self._publish)
        self.keeper = Housekeeper(
            self.ledger, None, "me", Path("outputs"), lease_seconds=15.0, slice_seconds=1.0, clock=lambda: self.now,  # type: ignore[arg-type]
        )  # fmt: skip

    def _publish(self, _app: object, tickets: list[object]) -> int:
        self.published += len(list(tickets))
        return len(tickets)

    def sweep(self, after: float = 0.5) -> int:
        """One sweep; returns how many tickets it published."""
        self.now += after
        before = self.published
        self.keeper.sweep()
        return self.published - before


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    """A fresh housekeeper."""
    return Sweeps(monkeypatch)


def test_expired_leases_are_published_again(sweeps: Sweeps) -> None:
    """What reclaim offers again gets its messages."""
    sweeps.ledger.expired[:] = [b"t1", b"t2"]
    assert sweeps.sweep() == 2
    assert sweeps.sweep() == 0


def test_shared_ranges_are_published(sweeps: Sweeps) -> None:
    """The part of a long range that idle slots are offered gets its message, even while nobody is judged."""
    sweeps.ledger.shared[:] = [b"t1"]
    assert sweeps.sweep(after=60) == 1


def test_ranges_whose_time_has_come_are_published(sweeps: Sweeps) -> None:
    """What is tried again gets its message when it is due, even while nobody is judged."""
    sweeps.ledger.due[:] = [b"t1", b"t2"]
    assert sweeps.sweep(after=60) == 2
    assert sweeps.sweep() == 0


def test_nobody_is_judged_after_an_absence(sweeps: Sweeps) -> None:
    """After a gap of its own the housekeeper waits one lease before it reclaims, then goes on."""
    sweeps.sweep()
    assert sweeps.ledger.reclaims == 1
    sweeps.sweep(after=housekeeper.ABSENCE_SECONDS + 0.1)
    for _ in range(29):
        sweeps.sweep(after=0.5)
    assert sweeps.ledger.reclaims == 1
    sweeps.sweep(after=0.5)
    assert sweeps.ledger.reclaims == 2


def test_short_gap_is_no_absence(sweeps: Sweeps) -> None:
    """A slow round alone does not stop the reclaiming."""
    sweeps.sweep()
    sweeps.sweep(after=housekeeper.ABSENCE_SECONDS - 0.1)
    assert sweeps.ledger.reclaims == 2


def test_owed_tickets_are_paid_when_missing_twice(sweeps: Sweeps) -> None:
    """A ticket on its way from the queue to its claim is not taken for lost; one that is missing twice is."""
    sweeps.ledger.waiting, sweeps.ledger.queued = 5, 4
    assert sweeps.sweep() == 0
    sweeps.ledger.queued = 5
    assert sweeps.sweep() == 0
    sweeps.ledger.queued = 2
    assert sweeps.sweep() == 0
    sweeps.ledger.queued = 3
    assert sweeps.sweep() == 2


def test_paid_tickets_are_not_paid_at_once_again(sweeps: Sweeps) -> None:
    """After paying, a ticket must be missing twice anew."""
    sweeps.ledger.waiting = 1
    assert [sweeps.sweep() for _ in range(5)] == [0, 1, 0, 1, 0]


def test_very_many_owed_tickets_are_paid_bit_by_bit(sweeps: Sweeps) -> None:
    """Heartbeats and renewals come between two rounds; what is left was missing twice already."""
    most = housekeeper.MOST_PAID
    sweeps.ledger.waiting = 2 * most + 2
    paid = [sweeps.sweep()]
    for _ in range(3):
        paid.append(sweeps.sweep())
        sweeps.ledger.queued += paid[-1]
    assert paid == [0, most, most, 2]


def test_more_messages_than_ranges_is_fine(sweeps: Sweeps) -> None:
    """Surplus tickets are never counted against later ones."""
    sweeps.ledger.queued = 9
    assert [sweeps.sweep() for _ in range(3)] == [0, 0, 0]


def test_another_is_the_housekeeper(sweeps: Sweeps) -> None:
    """Whoever does not hold the lock moves nothing and forgets what it saw."""
    sweeps.ledger.waiting = 3
    sweeps.sweep()
    sweeps.ledger.holder = b"other"
    assert sweeps.sweep() == 0
    reclaims = sweeps.ledger.reclaims
    assert sweeps.sweep() == 0
    assert sweeps.ledger.reclaims == reclaims
    sweeps.ledger.holder = b"me"
    assert sweeps.sweep() == 0
