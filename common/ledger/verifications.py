"""What verifications have found: plain keys that expire, beside the books of the batches."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.errors import NotFound
from common.ledger import keys, workers
from common.ledger.connection import Connection

KEPT_SECONDS = 24 * 3600
NAME = re.compile(r"[a-z0-9]{1,16}")
# A slot says that it is still at a part at least three times in this time. Longer than a dead worker counts as alive.
ALIVE_SECONDS = 10
# A part that nobody has begun, and that waits in no queue, is asked for again so often.
MOST_ASKED_AGAIN = 3
# Who is silent is given so much longer, once: Redis may have been away itself.
GRACE_SECONDS = 4
_GRACE_KEPT_SECONDS = 60


@dataclass(frozen=True)
class Part:
    """Some jobs to run again; ``worker`` ran them first, "" when nobody knows. It was passed on ``passes`` times.

    ``checked``, ``differing`` and ``same_worker`` are what those found who passed on only the rest of it.
    """

    batch: int
    name: str
    number: int
    jobs: tuple[int, ...]
    worker: str
    passes: int = 0
    checked: int = 0
    differing: tuple[tuple[int, str], ...] = ()
    same_worker: int = 0


@dataclass(frozen=True)
class Report:
    """What came of a part; ``differing`` are pairs of a job and why, ``lost`` those of which nobody knows.

    ``same_worker`` of the checked jobs were run where they ran first.
    """

    checked: int
    differing: Sequence[tuple[int, str]]
    same_worker: int
    lost: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class Verification:
    """How far a verification is; ``same_worker`` jobs could only be run where they ran first.

    A ``lost`` job went down with a worker, which says nothing of the job: it is not checked. Of the parts that are
    ``silent`` no slot has said for a while that it has them: they wait, or their message was lost.
    """

    batch: int
    name: str
    sample: int
    done: bool
    checked: int
    differing: list[tuple[int, str]]
    same_worker: int
    lost: list[tuple[int, str]]
    silent: Sequence[int] = ()


def begin(connection: Connection, batch_id: int, name: str, parts: Sequence[Part]) -> None:
    """Note a verification and what each of its parts asks for."""
    said = json.dumps({"parts": len(parts), "sample": sum(len(part.jobs) for part in parts)})
    asked = [("SET", _key(part, "asked"), json.dumps([part.jobs, part.worker]), "EX", KEPT_SECONDS) for part in parts]
    connection.many([*asked, *(("SET", _key(part, "alive"), 1, "EX", ALIVE_SECONDS) for part in parts)])
    connection.command("SET", keys.verification(batch_id, name), said, "EX", KEPT_SECONDS)


def asked(connection: Connection, batch_id: int, name: str, number: int) -> Part | None:
    """A part as it was asked for first, for one caller at a time: None for the others, for ``ALIVE_SECONDS``."""
    part = Part(batch_id, name, number, (), "")
    said = connection.command("GET", _key(part, "asked"))
    if said is None or not connection.command("SET", _key(part, "alive"), 1, "NX", "EX", ALIVE_SECONDS):
        return None
    jobs, worker = json.loads(said)
    return replace(part, jobs=tuple(jobs), worker=worker)


def ask_again(connection: Connection, part: Part) -> bool:
    """Whether a part whose message was lost is to be asked for again; else its jobs are noted as lost."""
    key = _key(part, "again")
    again = int(connection.command("INCR", key)) <= MOST_ASKED_AGAIN
    connection.command("EXPIRE", key, KEPT_SECONDS)
    if not again:
        report(connection, part, Report(0, [], 0, [(job, "was not begun: its message was lost") for job in part.jobs]))
    return again


def queued(connection: Connection, queue: str, name: str) -> set[int]:
    """The parts of a verification whose messages are in a queue. Reads the whole queue."""
    messages = connection.command("LRANGE", queue, 0, -1)
    pattern = re.compile(f'"{message_id(name)}-([0-9]+)-'.encode())
    return {int(number) for message in messages for number in pattern.findall(message)}


def message_id(name: str) -> str:
    """What the ids of the messages of a verification begin with, before the part's number."""
    return f"verify-{name}"


def at_work(connection: Connection, part: Part, job: int, worker: str, found: Report) -> None:
    """Note which job of a part a slot of ``worker`` is at, and what it has found before that."""
    still_at_work(connection, part)
    said = json.dumps([job, worker, _listed(found)])
    connection.command("SET", _key(part, "at"), said, "EX", KEPT_SECONDS)


def still_at_work(connection: Connection, part: Part) -> None:
    """Note that a slot has a part in its hands, or passes it on; else it counts as lost, once it was begun."""
    connection.command("SET", _key(part, "alive"), 1, "EX", ALIVE_SECONDS)


def leave(connection: Connection, part: Part) -> None:
    """Note that nobody is at a part: it waits for a slot again, however long."""
    connection.command("DEL", _key(part, "at"))


def report(connection: Connection, part: Part, found: Report) -> None:
    """Note what came of a part."""
    connection.command("SET", _key(part, "report"), json.dumps(_listed(found)), "EX", KEPT_SECONDS)


def look(connection: Connection, batch_id: int, name: str) -> Verification:
    """A verification as it is now. Raises :class:`NotFound` for one that is not known, or not any more."""
    # The name comes from a request, and must not lead to another key.
    said = connection.command("GET", keys.verification(batch_id, name)) if NAME.fullmatch(name) else None
    if said is None:
        raise NotFound(f"There is no verification {name} of batch {batch_id}.", field="verification")
    plan = json.loads(said)
    parts = [Part(batch_id, name, number, (), "") for number in range(plan["parts"])]
    values = connection.command("MGET", *(_key(part, what) for part in parts for what in ("report", "at", "alive")))
    checked, same_worker, open_parts = 0, 0, 0
    silent: list[int] = []
    differing: list[tuple[int, str]] = []
    lost: list[tuple[int, str]] = []
    for part, (reported, at, alive) in zip(parts, zip(*[iter(values)] * 3, strict=True), strict=True):
        found = _report(json.loads(reported)) if reported else None
        if found is None and at and not alive:
            found = _conclude(connection, part, *json.loads(at))
        if found is None:
            open_parts += 1
            silent += [] if at or alive else [part.number]
            continue
        checked, same_worker = checked + found.checked, same_worker + found.same_worker
        differing += found.differing
        lost += found.lost
    return Verification(
        batch_id, name, plan["sample"], not open_parts, checked, sorted(differing), same_worker, sorted(lost), silent
    )


def _conclude(connection: Connection, part: Part, job: int, worker: str, before: list[Any]) -> Report | None:
    """What is to be said of a part whose slot is silent; None: not yet.

    The job has killed its process if the worker lives. If that is gone too, or going, the job need not be why. What
    is said stays so, whatever becomes of the worker later.
    """
    if connection.command("SET", _key(part, "grace"), 1, "NX", "EX", _GRACE_KEPT_SECONDS):
        connection.command("SET", _key(part, "alive"), 1, "NX", "EX", GRACE_SECONDS)
        return None
    found = _report(before)
    if any(info.name == worker and info.slots for info in workers.alive(connection)):
        why = (job, "ended the process that ran it again")
        found = replace(found, checked=found.checked + 1, differing=[*found.differing, why])
    else:
        found = replace(found, lost=[(job, "was lost while it ran again")])
    said = json.dumps(_listed(found))
    return found if connection.command("SET", _key(part, "report"), said, "NX", "EX", KEPT_SECONDS) else None


def _key(part: Part, what: str) -> str:
    return keys.verification(part.batch, part.name, part.number, what)


def _listed(found: Report) -> list[Any]:
    return [found.checked, list(found.differing), found.same_worker, list(found.lost)]


def _report(said: list[Any]) -> Report:
    checked, differing, same_worker, lost = said
    return Report(checked, _pairs(differing), same_worker, _pairs(lost))


def _pairs(said: list[Any]) -> list[tuple[int, str]]:
    return [(int(job), str(why)) for job, why in said]
