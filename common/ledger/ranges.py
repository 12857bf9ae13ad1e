"""Ranges in the ledger: claim, commit, strike, renew, reclaim, release."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from common.batch import JobState, Reason
from common.ledger import keys
from common.ledger.connection import Connection
from common.ledger.table import pieces
from common.statistics import Moments

# How often in a row a worker may be lost with the same job, which ran alone then, before the job is FAILED.
MAX_CRASHES = 5
MAX_FAILURES_KEPT = 1000
MOST_RELEASED = 1000
DEFAULT_PARTITION = "default"


@dataclass(frozen=True)
class Ticket:
    """A range to publish: what a Celery message carries."""

    batch: int
    token: str
    first: int
    count: int
    partition: str = DEFAULT_PARTITION


@dataclass(frozen=True)
class Lease:
    """A range that this slot holds until the lease runs out.

    ``attempt`` is the number of its jobs' present attempt, ``tries`` how many of them failed; while ``careful`` seconds
    are left its jobs are committed one by one, because a worker was lost with them.
    """

    token: str
    batch: int
    first: int
    count: int
    attempt: int = 1
    tries: int = 0
    careful: float = 0.0
    lost: int = 0
    crashes: int = 0

    def after(self, verdict: "Verdict") -> "Lease":
        """The lease as its holder goes on with it after a commit of which the ledger has said ``continue``."""
        lost = self.lost if verdict.careful else 0
        attempt = self.attempt - self.lost + lost
        return replace(
            self, first=verdict.first, count=verdict.count, careful=verdict.careful, lost=lost, attempt=attempt
        )


@dataclass(frozen=True)
class Retry:
    """Jobs that failed and are tried again after ``delay`` seconds; ``base`` attempts were made before these tries."""

    first: int
    count: int
    tries: int
    delay: float
    base: int
    text: str = ""


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
    retries: Sequence[Retry] = ()
    # Runs of COMPLETED jobs, (first, count): what batches that follow element by element wait for.
    completed: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Verdict:
    """What the ledger says to a commit; for so many ``careful`` seconds the range goes on job by job."""

    word: Literal["continue", "released", "done", "shrunk", "stale"]
    ended: bool = False
    first: int = 0
    count: int = 0
    careful: float = 0.0
    tickets: tuple[str, ...] = ()


def claim(
    connection: Connection,
    ticket: tuple[int, str] | None,
    *,
    worker: str,
    slot: str,
    lease_seconds: float,
    slice_seconds: float,
    jobs_per_task: int = 0,
    partition: str = DEFAULT_PARTITION,
    simulations: Sequence[str] = (),
) -> tuple[Lease | None, tuple[str, ...]]:
    """Lease a waiting range of a batch whose simulation is built in or among ``simulations``.

    None when nothing waits any more, as after a second delivery of the message. Without a ticket only of a batch whose
    tickets are lost to slots that cannot run it.

    The second value has the tokens of ranges that were cut off and are to be published.
    """
    reply = connection.run(
        "claim",
        [keys.waiting(partition)],
        [partition, *(ticket or ("", "")), worker, slot, lease_seconds, slice_seconds, jobs_per_task, *simulations],
    )
    if reply[0] == b"stale":
        return None, ()
    _, token, batch, first, count, attempt, tries, careful, lost, crashes, *rest = reply
    lease = Lease(
        token.decode(), int(batch), first, count, int(attempt), int(tries), float(careful), int(lost), int(crashes)
    )
    return lease, tuple(part.decode() for part in rest)


def commit(
    connection: Connection,
    lease: Lease,
    work: Slice,
    *,
    lease_seconds: float,
    slice_seconds: float,
    give_back: bool = False,
    keep: bool = False,
    errands: Sequence[str] = (),
    partitions: Iterable[tuple[str, str]] = (),
) -> Verdict:
    """Make the slice's results true, once; refused as ``stale`` when the lease is another's by now.

    What is left of the range is given back if the ledger says so, or something waits in one of the queues ``errands``,
    or for another of the worker's ``partitions``, each with its queue of tickets, at no lower priority, or with
    ``give_back``; never with ``keep``.
    """
    segments, records = [], []
    for segment, offset, piece in pieces(work.first, work.records, work.record_size):
        segments.append(keys.table(lease.batch, segment))
        records += [offset, piece]
    reply = connection.run(
        "commit",
        [keys.LEASES, keys.batch(lease.batch), keys.leased_range(lease.token), keys.statistics(lease.batch),
         keys.failures(lease.batch), *segments],
        [lease.token, work.first, work.done, work.seconds, slice_seconds, lease_seconds,
         "keep" if keep else int(give_back),
         _work_json(work), MAX_FAILURES_KEPT, ",".join(errands), ",".join(chain.from_iterable(partitions)),
         *records],
    )  # fmt: skip
    word = reply[0].decode()
    if word == "stale":
        return Verdict("stale")
    _, ended, first, count, careful, *tokens = reply
    return Verdict(word, bool(ended), first, count, float(careful), tuple(token.decode() for token in tokens))


def _work_json(work: Slice) -> str:
    return json.dumps(
        {
            "states": {state.name: jobs for state, jobs in work.states.items()},
            "moments": work.moments,
            "failures": work.failures,
            "retries": [[r.first, r.count, r.tries, r.delay, r.base, r.text] for r in work.retries],
            "completed": work.completed,
        }
    )


def strike(
    connection: Connection, token: str, job: int, *, state: JobState | None, limit: int, record: bytes, text: str
) -> tuple[bool, bool, tuple[str, ...]]:
    """End the job that died with its process, or give it another try, alone, after a crash (``state`` None).

    Returns whether the lease was still held, whether the batch has ended, and the tokens to publish.
    """
    reply = connection.run(
        "strike",
        [keys.LEASES, keys.leased_range(token)],
        [token, job, state.name if state else "", limit, record, text, MAX_FAILURES_KEPT],
    )
    if reply[0] == b"stale":
        return False, False, ()
    return True, bool(reply[1]), tuple(part.decode() for part in reply[2:])


def renew(connection: Connection, held: Mapping[str, int], *, lease_seconds: float) -> list[str]:
    """Prolong the leases of these tokens, and note at which job each holder is (0: at none).

    Returns those whose holder must stop: the lease is lost, or that job was cancelled or is another's by now.
    """
    if not held:
        return []
    pairs = [value for pair in held.items() for value in pair]
    return [token.decode() for token in connection.run("renew", [keys.LEASES], [lease_seconds, *pairs])]


def stopped(connection: Connection, token: str) -> list[Ticket]:
    """Say that the holder of a lease that was lost has stopped: its place is free. Returns what is to be published."""
    return tickets(connection, connection.run("stopped", [keys.STOPPING], [token]))


def reclaim(
    connection: Connection,
    tokens: Sequence[str] = (),
    *,
    crashed: bool = True,
    careful_seconds: float = 2.0,
    fault: str = "",
) -> list[Ticket]:
    """Offer leased ranges again: the given ones, or all whose lease ran out. Returns what is to be published.

    With ``crashed`` they were lost with their worker: then the first ``careful_seconds`` of each run job by job, so
    that a job that takes its worker down is found, and FAILED when it has done so too often. A ``fault`` says why the
    holder, which is there still, could not go on: then that is what is told of it.
    """
    # The rest of a record's head: exit, slot, signal, reason; the script puts state and attempt before it.
    rest = bytes([0, 0, 0, 0, 0, Reason.CrashLimit])
    reply = connection.run(
        "reclaim", [keys.LEASES], [int(crashed), careful_seconds, MAX_CRASHES, rest, MAX_FAILURES_KEPT, fault, *tokens]
    )
    return tickets(connection, reply)


def release(connection: Connection, *, patient: bool = False) -> list[Ticket]:
    """Let the jobs be tried again whose time has come; returns what is to be published.

    A place is free, too, of whose cancelled job no worker has said for too long that it still runs; not if ``patient``.
    """
    return tickets(connection, connection.run("release", [keys.PARKED], [MOST_RELEASED, int(not patient)]))


def share(connection: Connection, *, slice_seconds: float, partition: str = DEFAULT_PARTITION) -> list[Ticket]:
    """Take the end of a range whose slot is at a long job, with the most jobs behind that, when slots are idle."""
    return tickets(connection, connection.run("share", [keys.LEASES], [partition, slice_seconds]))


def unblock(
    connection: Connection, batch_id: int, runs: Iterable[tuple[int, int]], *, primed: str = ""
) -> list[Ticket]:
    """Let jobs run whose elements in the followed batch have completed; ``primed`` leaves the list of the unprimed."""
    numbers = [number for run in runs for number in run]
    reply = connection.run("unblock", [keys.batch(batch_id), keys.UNPRIMED], [batch_id, primed, *numbers])
    return tickets(connection, reply)


def tickets(connection: Connection, tokens: Iterable[bytes | str]) -> list[Ticket]:
    """The ranges of these tokens that are still there."""
    names = [token.decode() if isinstance(token, bytes) else token for token in tokens]
    if not names:
        return []
    fields = ("batch", "first", "count", "partition")
    rows = connection.many([("HMGET", keys.leased_range(name), *fields) for name in names])
    return [
        Ticket(int(batch), name, int(first), int(count), partition.decode())
        for name, (batch, first, count, partition) in zip(names, rows, strict=True)
        if batch is not None
    ]


def lookup(connection: Connection, token: str) -> Ticket | None:
    """A range that has not been finished, by its token."""
    return next(iter(tickets(connection, [token])), None)


def holder(connection: Connection, token: str) -> str:
    """The name of the slot that holds a range, or held it last; "" when the range is gone."""
    name = connection.command("HGET", keys.leased_range(token), "slot")
    return name.decode() if name else ""


def open_ranges(connection: Connection, batch_id: int) -> list[Ticket]:
    """The batch's ranges, wherever they are: waiting, parked, blocked or leased."""
    tokens: list[Any] = []
    for place in (keys.ranges(batch_id), keys.parked(batch_id), keys.blocked(batch_id), keys.LEASES):
        tokens += connection.command("ZRANGE", place, 0, -1)
    return [ticket for ticket in tickets(connection, tokens) if ticket.batch == batch_id]


def owed(connection: Connection, queue: str, partition: str = DEFAULT_PARTITION) -> tuple[int, int]:
    """How many ranges of batches that a live worker can run slots may take now; how many messages are in the queue."""
    waiting, queued = connection.run("owed", [keys.waiting(partition), queue], [partition])
    return int(waiting), int(queued)


def partitions(connection: Connection) -> list[str]:
    """The partitions that ever had a batch."""
    return sorted(name.decode() for name in connection.command("SMEMBERS", keys.PARTITIONS))
