"""Ranges in the ledger: claim, commit, renew, reclaim."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.batch import JobState
from common.ledger import keys
from common.ledger.connection import Connection
from common.ledger.table import SEGMENT_JOBS, pieces
from common.statistics import Moments

MAX_CRASHES = 5
MAX_FAILURES_KEPT = 1000


@dataclass(frozen=True)
class Ticket:
    """A range to publish: what a Celery message carries."""

    batch: int
    token: str
    first: int
    count: int


@dataclass(frozen=True)
class Lease:
    """A range that this slot holds until the lease runs out."""

    token: str
    batch: int
    first: int
    count: int
    crashes: int


@dataclass(frozen=True)
class Slice:
    """The results of consecutive jobs from ``first`` on, ready to commit."""

    first: int
    done: int
    seconds: float
    states: Mapping[JobState, int]
    moments: Mapping[str, Moments]
    failures: Mapping[int, str]
    records: bytes | memoryview
    record_size: int


@dataclass(frozen=True)
class Verdict:
    """What the ledger says to a commit."""

    word: Literal["continue", "released", "done", "shrunk", "stale"]
    ended: bool = False
    first: int = 0
    count: int = 0
    tickets: tuple[str, ...] = ()


def claim(
    connection: Connection,
    ticket: tuple[int, str],
    *,
    worker: str,
    slot: str,
    lease_seconds: float,
    slice_seconds: float,
    jobs_per_task: int = 0,
) -> tuple[Lease | None, tuple[str, ...]]:
    """Lease a waiting range. None when nothing waits any more, as after a second delivery of the message.

    The second value has the tokens of ranges that were cut off and are to be published.
    """
    reply = connection.run(
        "claim",
        [keys.WAITING, keys.LEASES, keys.CLOCK],
        [*ticket, worker, slot, lease_seconds, slice_seconds, jobs_per_task],
    )
    if reply[0] == b"stale":
        return None, ()
    _, token, batch, first, count, crashes, *rest = reply
    lease = Lease(token.decode(), int(batch), first, count, int(crashes))
    return lease, tuple(part.decode() for part in rest)


def commit(
    connection: Connection,
    lease: Lease,
    work: Slice,
    *,
    lease_seconds: float,
    slice_seconds: float,
    give_back: bool = False,
) -> Verdict:
    """Make the slice's results true, once; refused as ``stale`` when the lease is another's by now."""
    segments, records = [], []
    for segment, offset, piece in pieces(work.first, work.records, work.record_size):
        segments.append(keys.table(lease.batch, segment))
        records += [offset, piece]
    reply = connection.run(
        "commit",
        [keys.LEASES, keys.batch(lease.batch), keys.leased_range(lease.token), keys.statistics(lease.batch),
         keys.failures(lease.batch), keys.WAITING, *segments],
        [lease.token, work.first, work.done, work.seconds, slice_seconds, lease_seconds, int(give_back),
         json.dumps({state.name: jobs for state, jobs in work.states.items()}), json.dumps(work.moments),
         json.dumps(work.failures), MAX_FAILURES_KEPT, *records],
    )  # fmt: skip
    word = reply[0].decode()
    if word == "stale":
        return Verdict("stale")
    return Verdict(word, bool(reply[1]), reply[2], reply[3], tuple(token.decode() for token in reply[4:]))


def renew(connection: Connection, tokens: Sequence[str], *, lease_seconds: float) -> list[str]:
    """Prolong the leases; returns those that were lost."""
    if not tokens:
        return []
    return [token.decode() for token in connection.run("renew", [keys.LEASES], [lease_seconds, *tokens])]


def reclaim(connection: Connection, tokens: Sequence[str] = (), *, crashed: bool = True) -> list[Ticket]:
    """Offer leased ranges again: the given ones, or all whose lease ran out. Returns what is to be published."""
    head = bytes([JobState.FAILED, MAX_CRASHES])
    reply = connection.run(
        "reclaim",
        [keys.LEASES],
        [int(crashed), MAX_CRASHES, head, SEGMENT_JOBS, MAX_FAILURES_KEPT, *tokens],
    )
    return _tickets(reply)


def share(connection: Connection, *, slice_seconds: float) -> list[Ticket]:
    """Take the end of the longest range from a slot that is at a long job, when slots are idle."""
    return _tickets(connection.run("share", [keys.LEASES], [slice_seconds]))


def _tickets(reply: list[Any]) -> list[Ticket]:
    groups = zip(*[iter(reply)] * 4, strict=True)
    return [Ticket(int(batch), token.decode(), int(first), int(count)) for token, batch, first, count in groups]


def lookup(connection: Connection, token: str) -> Ticket | None:
    """A range that has not been finished, by its token."""
    batch, first, count = connection.command("HMGET", keys.leased_range(token), "batch", "first", "count")
    return Ticket(int(batch), token, int(first), int(count)) if batch is not None else None


def open_ranges(connection: Connection, batch_id: int) -> list[Ticket]:
    """The batch's ranges that wait or are leased."""
    tokens = connection.command("ZRANGE", keys.ranges(batch_id), 0, -1) + connection.command(
        "ZRANGE", keys.LEASES, 0, -1
    )
    found = [lookup(connection, token.decode()) for token in tokens]
    return [ticket for ticket in found if ticket is not None and ticket.batch == batch_id]


def owed(connection: Connection, queue: str) -> tuple[int, int]:
    """How many ranges wait for a slot, and how many messages for them are in the queue."""
    waiting, queued = connection.run("owed", [keys.WAITING, queue], [])
    return int(waiting), int(queued)
