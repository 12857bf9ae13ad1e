"""Batches in the ledger: submit, look up, cancel."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from common.batch import BatchSpec, JobState, batch_state, initial_ranges
from common.errors import NotFound
from common.ledger import keys
from common.ledger.connection import Connection
from common.ledger.table import record_dtype
from common.simulations import random_numbers

IDEMPOTENCY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class OutputStatistics:
    """Running statistics of one numeric output over the completed jobs."""

    n: int
    mean: float
    m2: float
    min: float
    max: float


@dataclass(frozen=True)
class BatchView:
    """A batch as the ledger sees it at one moment."""

    spec: BatchSpec
    counters: dict[JobState, int]
    created: float
    started: float | None
    ended: float | None
    crashes: int

    @property
    def state(self) -> str:
        """The batch's state, derived from its counters."""
        return batch_state(self.counters)

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


def submit(
    connection: Connection,
    spec: BatchSpec,
    *,
    idempotency_key: str = "",
    key_seconds: int = IDEMPOTENCY_SECONDS,
    slots: int = 0,
) -> tuple[int, list[tuple[str, int, int]]]:
    """Enter a batch with all its jobs PENDING, in one step.

    Returns its id and the ranges to publish as ``(token, first, count)``; with an idempotency key that has a batch
    already, that batch's id and no ranges. The key is kept for ``key_seconds``; 0: for ever.
    ``slots`` is how many slots will work on it; 0: as many as there are now.
    """
    ranges = initial_ranges(spec.jobs, slots or int(connection.command("GET", keys.SLOTS) or 0))
    arguments: list[object] = [spec.id, spec.to_json(), spec.jobs, secrets.token_hex(4), int(spec.startup)]
    arguments += [key_seconds, record_dtype(random_numbers.OUTPUTS).itemsize]
    for first, count in ranges:
        arguments += [first, count]
    slot = keys.idempotency(idempotency_key) if idempotency_key else ""
    reply = connection.run("submit", [keys.batch(spec.id), keys.BATCHES, keys.ACTIVE, keys.STARTUP, slot], arguments)
    if reply[0] == b"known":
        return int(reply[1]), []
    tokens = [token.decode() for token in reply[1:]]
    return spec.id, [(token, *span) for token, span in zip(tokens, ranges, strict=True)]


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


def view(connection: Connection, batch_id: int) -> BatchView:
    """The batch now. Raises :class:`NotFound`."""
    names = [state.name for state in JobState]
    fields = ["spec", "created", "started", "ended", "crashes", *names]
    spec, created, started, ended, crashes, *counts = connection.command("HMGET", keys.batch(batch_id), *fields)
    if spec is None:
        raise NotFound(f"There is no batch {batch_id}.", field="batch")
    return BatchView(
        spec=BatchSpec.from_json(spec),
        counters={state: int(count) for state, count in zip(JobState, counts, strict=True)},
        created=float(created),
        started=float(started) if started else None,
        ended=float(ended) if ended else None,
        crashes=int(crashes or 0),
    )


def running_jobs(connection: Connection, batch_id: int) -> set[int]:
    """Indices of the jobs that slots are at: the head of each leased range."""
    heads = set()
    for token in connection.command("ZRANGE", keys.LEASES, 0, -1):
        batch, first = connection.command("HMGET", keys.leased_range(token.decode()), "batch", "first")
        if batch is not None and int(batch) == batch_id:
            heads.add(int(first))
    return heads


def statistics(connection: Connection, batch_id: int, outputs: Sequence[str]) -> dict[str, OutputStatistics]:
    """Running statistics of the outputs; an output that no job has given yet is left out."""
    found = {}
    for output in outputs:
        fields = [f"{output}:{part}" for part in ("n", "mean", "m2", "min", "max")]
        n, *parts = connection.command("HMGET", keys.statistics(batch_id), *fields)
        if n is not None:
            found[output] = OutputStatistics(int(float(n)), *(float(part) for part in parts))
    return found


def failures(connection: Connection, batch_id: int) -> dict[int, str]:
    """Error texts of failed jobs, by index; the first ones only, when there are very many."""
    raw = connection.command("HGETALL", keys.failures(batch_id))
    return {int(index): text.decode() for index, text in raw.items()}


def cancel(connection: Connection, batch_id: int) -> int:
    """Cancel all jobs that have not ended; returns how many that were."""
    return int(
        connection.run("cancel", [keys.batch(batch_id), keys.WAITING, keys.LEASES, keys.ranges(batch_id)], [batch_id])
    )
