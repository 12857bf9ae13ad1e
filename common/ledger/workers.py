"""The workers that are alive, the numbers of their slots, and which of them is the housekeeper."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from common.batch import BatchSpec
from common.ledger import keys
from common.ledger.connection import Connection

# A worker says every HEARTBEAT_SECONDS that it lives; after three missed ones it no longer counts.
HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 3.5 * HEARTBEAT_SECONDS
# What two bytes of a job's record can hold.
MOST_SLOT_NUMBERS = 2**16 - 1
_KEYS = [keys.WORKERS, keys.WORKER_INFO, keys.SLOTS, keys.PARTITION_SLOTS, keys.OFFERS]


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself."""

    name: str
    slots: int
    busy: int
    pid: int
    partitions: tuple[str, ...] = ("default",)
    # Those that are not built in, as name:version.
    simulations: tuple[str, ...] = ()

    def has(self, spec: BatchSpec) -> bool:
        """Whether it has the batch's simulation, in the batch's version."""
        return not spec.version or f"{spec.simulation}:{spec.version}" in self.simulations

    def runs(self, spec: BatchSpec) -> bool:
        """Whether it can run the batch: it serves the partition and has the simulation."""
        return spec.partition in self.partitions and self.has(spec)


def heartbeat(connection: Connection, info: WorkerInfo) -> int:
    """Say that this worker lives; returns how many do."""
    said = json.dumps(asdict(info))
    return int(connection.run("heartbeat", _KEYS, [info.name, said, SILENCE_SECONDS]))


def sign_off(connection: Connection, name: str) -> None:
    """Say that this worker is leaving, so that its slots are no longer counted."""
    connection.run("heartbeat", _KEYS, [name, "", SILENCE_SECONDS])


def alive(connection: Connection) -> list[WorkerInfo]:
    """The workers whose last heartbeat is recent, by name."""
    seconds, microseconds = connection.command("TIME")
    since = int(seconds) + int(microseconds) / 1e6 - SILENCE_SECONDS
    names = connection.command("ZRANGE", keys.WORKERS, since, "+inf", "BYSCORE")
    if not names:
        return []
    said = connection.command("HMGET", keys.WORKER_INFO, *names)
    return sorted((_info(json.loads(text)) for text in said if text), key=lambda info: info.name)


def _info(said: dict[str, Any]) -> WorkerInfo:
    # JSON knows no tuples.
    tuples = {name: tuple(value) for name, value in said.items() if isinstance(value, list)}
    return WorkerInfo(**{**said, **tuples})


def slot_number(connection: Connection, slot: str) -> int:
    """The number that stands for this slot in the job table, its own; 1…65535, wrapping after that."""
    return int(connection.run("slot_number", [keys.SLOT_NUMBERS], [slot, MOST_SLOT_NUMBERS]))


def slot_names(connection: Connection) -> dict[int, str]:
    """Slot names by the number in the job table."""
    return {int(number): name.decode() for name, number in connection.command("HGETALL", keys.SLOT_NUMBERS).items()}


def become_housekeeper(connection: Connection, name: str, *, seconds: float) -> bool:
    """Whether this worker is the housekeeper for the next ``seconds``: one at a time, until it stops asking."""
    milliseconds = int(seconds * 1000)
    if connection.command("SET", keys.HOUSEKEEPER, name, "NX", "PX", milliseconds):
        return True
    holder = connection.command("GET", keys.HOUSEKEEPER)
    # Two housekeepers for a moment do no harm: every transition checks where it comes from.
    if holder is not None and holder.decode() == name:
        connection.command("PEXPIRE", keys.HOUSEKEEPER, milliseconds)
        return True
    return False
