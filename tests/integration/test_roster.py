"""Who works: the workers that beat, the one housekeeper, the slots' numbers."""

import threading

from common.ledger import Connection, keys, workers
from common.ledger.workers import WorkerInfo


def test_heartbeat_counts_slots_and_drops_the_silent(connection: Connection) -> None:
    """Slots are those of the workers that beat; who is silent, or signs off, is gone."""
    one, other = WorkerInfo("a", 2, 1, 11, ("default", "gpu")), WorkerInfo("b", 3, 0, 12)
    assert workers.heartbeat(connection, one) == 1
    assert workers.heartbeat(connection, other) == 2
    assert workers.alive(connection) == [one, other]
    assert connection.command("GET", keys.SLOTS) == b"5"
    assert connection.command("HGETALL", keys.PARTITION_SLOTS) == {b"default": b"5", b"gpu": b"2"}
    connection.command("ZADD", keys.WORKERS, "XX", 1, "a")
    assert workers.alive(connection) == [other]
    assert workers.heartbeat(connection, other) == 1
    assert connection.command("GET", keys.SLOTS) == b"3"
    assert connection.command("HGETALL", keys.PARTITION_SLOTS) == {b"default": b"3"}
    workers.sign_off(connection, "b")
    assert (workers.alive(connection), connection.command("GET", keys.SLOTS)) == ([], b"0")


def test_one_housekeeper_at_a_time(connection: Connection) -> None:
    """Who has the lock keeps it while it asks; another gets it when it has run out."""
    assert workers.become_housekeeper(connection, "a", seconds=60)
    assert not workers.become_housekeeper(connection, "b", seconds=60)
    assert workers.become_housekeeper(connection, "a", seconds=60)
    connection.command("DEL", keys.HOUSEKEEPER)
    assert workers.become_housekeeper(connection, "b", seconds=60)


def test_slot_numbers(connection: Connection) -> None:
    """Each slot has a number of its own for ever."""
    assert [workers.slot_number(connection, name) for name in ("a/0", "a/1", "a/0")] == [1, 2, 1]
    assert workers.slot_names(connection) == {1: "a/0", 2: "a/1"}


def test_slots_that_start_together_have_numbers_of_their_own(connection: Connection, redis_url: str) -> None:
    """Sixteen at once, several times: a record's number names one slot, and a second question gives the same."""
    opened = [Connection(redis_url) for _ in range(16)]
    for own in opened:
        own.command("PING")
    for turn in range(5):
        names = [f"w{turn}/{number}" for number in range(16)]
        got: dict[str, int] = {}
        barrier = threading.Barrier(16)

        def ask(own: Connection, name: str, got: dict[str, int] = got, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            got[name] = workers.slot_number(own, name)

        threads = [threading.Thread(target=ask, args=pair) for pair in zip(opened, names, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got.values()) == list(range(16 * turn + 1, 16 * turn + 17))
        assert {name: workers.slot_number(connection, name) for name in names} == got
    for own in opened:
        own.close()
