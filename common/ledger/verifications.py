"""What verifications have found: plain keys that expire, beside the books of the batches."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import NotFound
from common.ledger import keys
from common.ledger.connection import Connection

KEPT_SECONDS = 24 * 3600
NAME = re.compile(r"[a-z0-9]{1,16}")
# A slot says that it is still at a part at least three times in this time.
ALIVE_SECONDS = 10


@dataclass(frozen=True)
class Part:
    """Some jobs to run again; ``worker`` ran them first, "" when nobody knows. It was passed on ``passes`` times."""

    batch: int
    name: str
    number: int
    jobs: tuple[int, ...]
    worker: str
    passes: int = 0


@dataclass(frozen=True)
class Report:
    """What came of a part; ``differing`` are pairs of a job and why."""

    checked: int
    differing: Sequence[tuple[int, str]]
    same_worker: bool


@dataclass(frozen=True)
class Verification:
    """How far a verification is; ``same_worker`` jobs could only be run where they ran first."""

    batch: int
    name: str
    sample: int
    done: bool
    checked: int
    differing: list[tuple[int, str]]
    same_worker: int


def begin(connection: Connection, batch_id: int, name: str, parts: int, sample: int) -> None:
    """Note a verification of ``sample`` jobs in so many parts."""
    said = json.dumps({"parts": parts, "sample": sample})
    connection.command("SET", keys.verification(batch_id, name), said, "EX", KEPT_SECONDS)


def at_work(connection: Connection, part: Part, job: int) -> None:
    """Note which job of a part a slot is at."""
    still_at_work(connection, part)
    connection.command("SET", keys.verification(part.batch, part.name, part.number, "at"), job, "EX", KEPT_SECONDS)


def still_at_work(connection: Connection, part: Part) -> None:
    """Note that a slot is still at a part; else it counts as lost, once it was begun."""
    connection.command("SET", keys.verification(part.batch, part.name, part.number, "alive"), 1, "EX", ALIVE_SECONDS)


def report(connection: Connection, part: Part, found: Report) -> None:
    """Note what came of a part."""
    said = json.dumps([found.checked, found.differing, found.same_worker])
    connection.command("SET", keys.verification(part.batch, part.name, part.number, "report"), said, "EX", KEPT_SECONDS)


def look(connection: Connection, batch_id: int, name: str) -> Verification:
    """A verification as it is now. Raises :class:`NotFound` for one that is not known, or not any more."""
    # The name comes from a request, and must not lead to another key.
    said = connection.command("GET", keys.verification(batch_id, name)) if NAME.fullmatch(name) else None
    if said is None:
        raise NotFound(f"There is no verification {name} of batch {batch_id}.", field="verification")
    plan = json.loads(said)
    wanted = [
        keys.verification(batch_id, name, number, what)
        for number in range(plan["parts"])
        for what in ("report", "at", "alive")
    ]
    values = connection.command("MGET", *wanted)
    checked, same_worker, open_parts, differing = 0, 0, 0, []
    for reported, at, alive in zip(*[iter(values)] * 3, strict=True):
        if reported:
            count, found, same = json.loads(reported)
            checked, same_worker = checked + count, same_worker + (count if same else 0)
            differing += [(int(job), str(why)) for job, why in found]
        elif at and not alive:
            differing.append((int(at), "ended the process that ran it again"))
        else:
            open_parts += 1
    return Verification(batch_id, name, plan["sample"], not open_parts, checked, sorted(differing), same_worker)
