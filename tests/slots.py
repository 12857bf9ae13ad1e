"""A worker's slots as processes: which they are, and catching them at work."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from common.ledger import Connection, keys, workers
from tests.support import Running, wait_for


def slots_of(running: Running) -> list[int]:
    """Process ids of a worker's slots."""
    return [int(pid) for pid in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()]


def process_state(pid: int) -> str:
    """As ``ps`` names it."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def suspend(connection: Connection, pids: Sequence[int]) -> None:
    """Return when none of them runs, and what they had sent has arrived."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    # One that still runs on another processor could commit.
    wait_for(lambda: all(process_state(pid) == "T" for pid in pids), 10, "suspended processes")
    connection.command("PING")


def stopped_at_work(connection: Connection, slots: Sequence[int]) -> bool:
    """Suspend the slots; whether each holds a range, else they go on."""
    suspend(connection, slots)
    if connection.command("ZCARD", keys.LEASES) == len(slots):
        return True
    for pid in slots:
        os.kill(pid, signal.SIGCONT)
    return False


def held_by(connection: Connection, worker: Running) -> set[bytes]:
    """The tokens of the ranges that a worker has, by its heartbeats."""
    name = next((info.name for info in workers.alive(connection) if info.pid == worker.pid), "")
    tokens: list[bytes] = connection.command("ZRANGE", keys.LEASES, 0, -1)
    owners = connection.many([("HGET", keys.leased_range(token.decode()), "worker") for token in tokens])
    return {token for token, owner in zip(tokens, owners, strict=True) if owner == name.encode()}


def kill_at_work(connection: Connection, worker: Running) -> set[bytes]:
    """Kill a worker with the ranges in its hands, whose tokens are returned.

    It is suspended while we look: between two ranges it has none, and those that it has it could end before it dies.
    """

    def caught() -> set[bytes]:
        suspend(connection, [worker.pid, *slots_of(worker)])
        held = held_by(connection, worker)
        if not held:
            os.killpg(worker.pid, signal.SIGCONT)
        return held

    held = wait_for(caught, 60, "a range in the worker's hands", worker.text)
    worker.kill()
    return held
