"""Batches in the ledger: submit and look up."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.batch import INITIAL_RANGES, BatchSpec, JobState, batch_state, initial_ranges
from common.errors import NotFound
from common.ledger import keys
from common.ledger.connection import Connection
from common.ledger.ranges import Ticket, tickets
from common.ledger.table import SEGMENT_JOBS, record_dtype
from common.statistics import Moments

IDEMPOTENCY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class BatchView:
    """A batch as the ledger sees it at one moment."""

    spec: BatchSpec
    counters: dict[JobState, int]
    created: float
    started: float | None
    ended: float | None
    finished: float | None
    crashes: int
    held: bool = False
    throttle: int = 0
    priority: int = 0
    # Failed jobs above which the rest is ABORTED; None: no limit.
    max_fails: int | None = None
    # Dependencies that are not met, and how many of them cannot be any more.
    unmet: int = 0
    never: int = 0
    # ABORTED jobs that the batch's stop rule made needless.
    needless: int = 0
    # The first job that gave other bytes when it ran again, and at which attempt.
    differed: tuple[int, int] | None = None
    # What was suspicious about its results when they were written; None before.
    warnings: tuple[str, ...] | None = None

    @property
    def state(self) -> str:
        """The batch's state, derived from its counters."""
        return batch_state(self.counters, held=self.held)

    @property
    def succeeded(self) -> bool:
        """Whether all its jobs completed, but for those that its own stop rule made needless."""
        return self.counters[JobState.COMPLETED] + self.needless == self.spec.jobs

    @property
    def done(self) -> int:
        """Jobs in a terminal state."""
        return sum(count for state, count in self.counters.items() if state.terminal)


def new_id(connection: Connection, floor: int = 0) -> int:
    """The next batch id, above ``floor``: the highest id that the outputs directory knows of."""
    last = int(connection.command("GET", keys.LAST_BATCH) or 0)
    if last < floor:
        # Two submitters that both lift it only skip numbers: INCRBY gives each its own.
        return int(connection.command("INCRBY", keys.LAST_BATCH, floor - last + 1))
    return int(connection.command("INCR", keys.LAST_BATCH))


def raise_last_id(connection: Connection, batch_id: int) -> None:
    """See that no new batch gets the number of a rebuilt one."""
    last = int(connection.command("GET", keys.LAST_BATCH) or 0)
    if last < batch_id:
        connection.command("INCRBY", keys.LAST_BATCH, batch_id - last)


def submit(
    connection: Connection,
    spec: BatchSpec,
    *,
    idempotency_key: str = "",
    key_seconds: int = IDEMPOTENCY_SECONDS,
    slots: int = 0,
    completed: int = 0,
    ranges: Sequence[tuple[int, int]] | None = None,
    cancelled: Sequence[tuple[int, int]] = (),
    outcomes: Mapping[int, str] | None = None,
    rebuilt: bool = False,
) -> tuple[int, list[Ticket]]:
    """Enter a batch, in one step.

    Returns its id and the ranges to publish; with an idempotency key that has a batch
    already, that batch's id and no ranges. The key is kept for ``key_seconds``; 0: for ever.
    ``slots`` is how many slots will work on it; 0: as many as there are now. A batch that exists is left as it is.

    One that is ``rebuilt`` has ``completed`` jobs whose records are in the table already, ``ranges`` of the others, of
    them what was ``cancelled`` as (first, count), in order and apart, and the ``outcomes`` ("ok", "bad") of batches
    that it depends on and the ledger does not know. It is entered whatever its key stands for; the key is its own from
    then on, unless a newer batch has it.
    """
    if ranges is None:
        if spec.jobs > INITIAL_RANGES and not slots:
            slots = int(connection.command("GET", keys.SLOTS) or 0)
        ranges = initial_ranges(spec.jobs, slots)
    arguments: list[object] = [spec.id, spec.to_json(), spec.jobs, secrets.token_hex(4), int(spec.startup)]
    arguments += [key_seconds, record_dtype(spec.outputs).itemsize, SEGMENT_JOBS, completed]
    arguments.append(_options_json(spec, cancelled, outcomes or {}, rebuilt=rebuilt))
    for first, count in ranges:
        arguments += [first, count]
    slot = keys.idempotency(idempotency_key) if idempotency_key else ""
    reply = connection.run("submit", [keys.batch(spec.id), keys.BATCHES, keys.ACTIVE, keys.STARTUP, slot], arguments)
    if reply[0] == b"known":
        return int(reply[1]), []
    if reply[0] == b"exists":
        return spec.id, []
    if cancelled:
        return spec.id, tickets(connection, reply[1:])
    # The tokens are those of the first ranges, in their order; fewer of a batch that is held or throttled.
    tokens = (token.decode() for token in reply[1:])
    return spec.id, [Ticket(spec.id, token, *span, spec.partition) for token, span in zip(tokens, ranges, strict=False)]


def _options_json(
    spec: BatchSpec, cancelled: Sequence[tuple[int, int]], outcomes: Mapping[int, str], *, rebuilt: bool
) -> str:
    return json.dumps(
        {
            "partition": spec.partition,
            "priority": spec.priority,
            "throttle": spec.throttle,
            "max_fails": "" if spec.max_fails is None else spec.max_fails,
            "held": int(spec.hold),
            "kill": int(spec.kill_on_invalid_dependency),
            "dependency": spec.dependency,
            "until": spec.until,
            "requires": f"{spec.simulation}:{spec.version}" if spec.version else "",
            "corr": any(kind == "aftercorr" for kind, _ in spec.dependency),
            "outcomes": outcomes,
            "cancelled": [[first, first + count - 1] for first, count in cancelled],
            "rebuilt": rebuilt,
        }
    )


def known_submit(connection: Connection, idempotency_key: str) -> int | None:
    """The batch that was submitted with this key, if any."""
    value = connection.command("GET", keys.idempotency(idempotency_key))
    return int(value) if value else None


def remember(connection: Connection, idempotency_key: str, batch_id: int) -> None:
    """Let this key stand for a batch that exists already."""
    connection.command("SET", keys.idempotency(idempotency_key), batch_id)


def startup_id(connection: Connection) -> int | None:
    """The newest start-up batch."""
    value = connection.command("GET", keys.STARTUP)
    return int(value) if value else None


def exists(connection: Connection, batch_id: int) -> bool:
    """Whether the ledger knows the batch."""
    return bool(connection.command("EXISTS", keys.batch(batch_id)))


def outcomes(connection: Connection, batch_id: int) -> dict[int, str]:
    """How batches that it depends on, and that the ledger has forgotten, ended by their files: "ok" or "bad"."""
    said = connection.command("HGET", keys.batch(batch_id), "outcomes")
    found = json.loads(said) if said else {}
    return {int(on): how for on, how in found.items()}


def view(connection: Connection, batch_id: int) -> BatchView:
    """The batch now. Raises :class:`NotFound`."""
    names = [state.name for state in JobState]
    numbers = ("crashes", "held", "throttle", "priority", "unmet", "never", "needless")
    fields = ["spec", "created", "started", "ended", "finished", "differed", "warnings", "max_fails", *numbers, *names]
    found = connection.command("HMGET", keys.batch(batch_id), *fields)
    spec, created, started, ended, finished, differed, said, most_fails, *rest = found
    if spec is None:
        raise NotFound(f"There is no batch {batch_id}.", field="batch")
    more = {name: int(value or 0) for name, value in zip(numbers, rest, strict=False)}
    return BatchView(
        spec=BatchSpec.from_json(spec),
        counters={state: int(count) for state, count in zip(JobState, rest[len(numbers) :], strict=True)},
        created=float(created),
        started=float(started) if started else None,
        ended=float(ended) if ended else None,
        finished=float(finished) if finished else None,
        crashes=more["crashes"],
        held=bool(more["held"]),
        throttle=more["throttle"],
        priority=more["priority"],
        max_fails=int(most_fails) if most_fails else None,
        unmet=more["unmet"],
        never=more["never"],
        needless=more["needless"],
        differed=_pair(differed),
        warnings=tuple(json.loads(said)) if said else None,
    )


def _pair(text: bytes | None) -> tuple[int, int] | None:
    if not text:
        return None
    job, attempt = text.split()
    return int(job), int(attempt)


def note_difference(connection: Connection, batch_id: int, job: int, attempt: int) -> None:
    """Note that a job gave other bytes at this attempt than at an earlier one; the first such job is kept."""
    connection.run("differ", [keys.batch(batch_id)], [batch_id, job, attempt])


def running_jobs(connection: Connection, batch_id: int) -> set[int]:
    """Indices of the jobs that slots are at, as they said last; else the head of each leased range."""
    heads = set()
    for token in connection.command("ZRANGE", keys.LEASES, 0, -1):
        batch, first, at = connection.command("HMGET", keys.leased_range(token.decode()), "batch", "first", "at")
        if batch is not None and int(batch) == batch_id:
            heads.add(max(int(first), int(at or 0)))
    return heads


def statistics(connection: Connection, batch_id: int, outputs: Sequence[str]) -> dict[str, Moments]:
    """Running statistics of the outputs; an output that no job has given yet is left out."""
    found = {}
    for output in outputs:
        fields = [f"{output}:{part}" for part in ("n", "mean", "m2", "min", "max")]
        n, *parts = connection.command("HMGET", keys.statistics(batch_id), *fields)
        if n is not None:
            found[output] = Moments(int(float(n)), *(float(part) for part in parts))
    return found


def set_statistics(connection: Connection, batch_id: int, found: Mapping[str, Moments]) -> None:
    """Write the statistics of a batch that is being rebuilt and not entered yet."""
    for output, values in found.items():
        pairs = [text for name, value in values._asdict().items() for text in (f"{output}:{name}", repr(value))]
        connection.command("HSET", keys.statistics(batch_id), *pairs)


def all_ids(connection: Connection) -> list[int]:
    """Every batch, the newest first."""
    return [int(batch_id) for batch_id in connection.command("ZREVRANGE", keys.BATCHES, 0, -1)]


def rules(connection: Connection) -> dict[int, str]:
    """The stop rules of the batches that have not ended and have one."""
    ids = [int(batch_id) for batch_id in connection.command("SMEMBERS", keys.ACTIVE)]
    found = connection.many([("HGET", keys.batch(batch_id), "until") for batch_id in ids]) if ids else []
    return {batch_id: rule.decode() for batch_id, rule in zip(ids, found, strict=True) if rule}


def is_marked(connection: Connection) -> bool:
    """Whether this Redis has been in use; False when it is new or was emptied."""
    return bool(connection.command("EXISTS", keys.MARKER))


def mark(connection: Connection) -> None:
    """Note that this Redis is in use."""
    connection.command("SET", keys.MARKER, "1")


def failures(connection: Connection, batch_id: int) -> dict[int, str]:
    """Error texts of failed jobs, by index; the first ones only, when there are very many."""
    raw = connection.command("HGETALL", keys.failures(batch_id))
    return {int(index): text.decode() for index, text in raw.items()}
