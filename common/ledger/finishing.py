"""Batches that have ended and whose results files are to be written, by one process at a time."""

import json
from collections.abc import Mapping, Sequence

from common.ledger import keys
from common.ledger.connection import Connection
from common.statistics import Moments


def awaited(connection: Connection) -> list[int]:
    """Batches that have ended and whose results files are not written yet."""
    return sorted(int(batch_id) for batch_id in connection.command("SMEMBERS", keys.FINISHING))


def claim(connection: Connection, batch_id: int, name: str, *, seconds: float) -> bool:
    """Whether ``name`` is the one that writes the batch's results files, for the next ``seconds``."""
    key, milliseconds = keys.finisher(batch_id), int(seconds * 1000)
    if connection.command("SET", key, name, "NX", "PX", milliseconds):
        return True
    if connection.command("GET", key) == name.encode():
        connection.command("PEXPIRE", key, milliseconds)
        return True
    return False


def unclaim(connection: Connection, batch_id: int, name: str) -> None:
    """Give up the right to write the batch's results files, if ``name`` still has it."""
    key = keys.finisher(batch_id)
    if connection.command("GET", key) == name.encode():
        connection.command("DEL", key)


def is_claimed(connection: Connection, batch_id: int) -> bool:
    """Whether somebody writes the batch's results files just now."""
    return bool(connection.command("EXISTS", keys.finisher(batch_id)))


def finished(
    connection: Connection,
    batch_id: int,
    ended: float | None,
    warnings: Sequence[str] = (),
    moments: Mapping[str, Moments] | None = None,
) -> bool:
    """Note that the results files are written, with these warnings and statistics, of the batch as it had ``ended``.

    False, and nothing has changed, when that was so before, or when the batch has been requeued since.
    """
    places = [keys.FINISHING, keys.batch(batch_id), keys.finisher(batch_id), keys.statistics(batch_id)]
    given = [batch_id, json.dumps(warnings), repr(ended), "" if moments is None else json.dumps(moments)]
    return bool(connection.run("finished", places, given))
