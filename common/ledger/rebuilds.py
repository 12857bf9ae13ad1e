"""Batches that could not be rebuilt when Redis was emptied, and when they are tried again."""

from common.ledger import keys
from common.ledger.connection import Connection

# The next try comes after so long; then after twice that, and so on.
FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 60, 3600


def note(connection: Connection, name: str, *, again: bool) -> int:
    """Note that the batch in the directory ``name`` could not be rebuilt; returns the seconds until the next try.

    Only tries ``again`` are counted on: the first one is made twice a second while Redis refuses another batch.
    """
    if again:
        tries = int(connection.command("HINCRBY", keys.NOT_REBUILT, name, 1))
    else:
        tries = 1
        connection.command("HSETNX", keys.NOT_REBUILT, name, tries)
    seconds = min(FIRST_PAUSE_SECONDS << min(tries - 1, 10), MOST_PAUSE_SECONDS)
    pause(connection, seconds)
    return seconds


def pause(connection: Connection, seconds: int = FIRST_PAUSE_SECONDS) -> None:
    """Let nobody try again for so long."""
    connection.command("SET", keys.REBUILD_PAUSE, 1, "EX", seconds)


def forget(connection: Connection, name: str) -> None:
    """There is nothing to rebuild in this directory any more."""
    connection.command("HDEL", keys.NOT_REBUILT, name)


def awaits(connection: Connection, batch_id: int) -> bool:
    """Whether the batch could not be rebuilt yet, and is to be tried again."""
    return bool(connection.command("HEXISTS", keys.NOT_REBUILT, batch_id))


def due(connection: Connection) -> list[str]:
    """The directories to try again now."""
    paused, names = connection.many([("EXISTS", keys.REBUILD_PAUSE), ("HKEYS", keys.NOT_REBUILT)])
    return [] if paused else sorted(name.decode() for name in names)
