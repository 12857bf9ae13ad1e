"""What people do to a batch that is there: cancel, hold, release, throttle, put first, run again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from common.batch import JobState, Reason
from common.ledger import keys
from common.ledger.connection import Connection
from common.ledger.ranges import Ticket, tickets
from common.statistics import Moments

Field = Literal["held", "throttle", "priority", "max_fails"]
# (first, count, state, attempts so far)
Run = tuple[int, int, JobState, int]
# Of an error that a requeue takes away so much of its last line is told, bytes.
MOST_TOLD = 200
_REASONS = json.dumps([reason.name if reason else "" for reason in Reason])


def cancel(
    connection: Connection, batch_id: int, first: int = 1, last: int = 2**53, *, state: str = ""
) -> tuple[int, list[Ticket]]:
    """Cancel the jobs from ``first`` to ``last`` that have not ended, or only those PENDING or RUNNING (``state``).

    Returns how many that were, and the ranges to publish that were cut. Costs the number of ranges, not of jobs.
    """
    return cancel_spans(connection, batch_id, [(first, last)], state=state)


def cancel_spans(
    connection: Connection, batch_id: int, spans: Sequence[tuple[int, int]], *, state: str = ""
) -> tuple[int, list[Ticket]]:
    """As :func:`cancel`, of all jobs in ``spans`` of (first, last) in one step; they must be in order and apart."""
    numbers = [number for span in spans for number in span]
    reply = connection.run("cancel", [keys.batch(batch_id)], [batch_id, state, *numbers])
    return int(reply[0]), tickets(connection, reply[1:])


def abort(
    connection: Connection, batch_id: int, reason: Reason, first: int = 1, last: int = 2**53
) -> tuple[int, list[Ticket]]:
    """End the jobs from ``first`` to ``last`` that have not ended; returns how many, and what is to be published."""
    reply = connection.run("abort", [keys.batch(batch_id)], [batch_id, reason.name, first, last])
    return int(reply[0]), tickets(connection, reply[1:])


def adjust(connection: Connection, batch_id: int, field: Field, value: int) -> list[Ticket]:
    """Hold (1) or release (0) a batch, set its throttle, priority or max_fails; returns the ranges to publish."""
    return tickets(connection, connection.run("adjust", [keys.batch(batch_id)], [batch_id, field, value]))


def requeue(
    connection: Connection, batch_id: int, runs: Sequence[Run], statistics: Mapping[str, Moments] | None = None
) -> list[Ticket] | None:
    """Make jobs of a terminal state PENDING again; each run lies within one table segment.

    With the first COMPLETED jobs the batch must have ended, and ``statistics`` are those of the jobs that stay so
    after all steps of the requeue. None, and nothing has changed, when a job is no longer in the state that was
    expected, or the batch has ended and its results files are not written yet.
    """
    given: list[Any] = [[first, count, int(state), state.name, attempts] for first, count, state, attempts in runs]
    reply = connection.run(
        "requeue",
        [keys.batch(batch_id), keys.ACTIVE, keys.FINISHING, keys.statistics(batch_id), keys.failures(batch_id)],
        [batch_id, json.dumps(given), "" if statistics is None else json.dumps(statistics), _REASONS, MOST_TOLD],
    )
    return None if reply[0] == b"moved" else tickets(connection, reply[1:])


def events(connection: Connection, batch_id: int) -> list[dict[str, Any]]:
    """What happened to jobs of the batch: ``{"at", "kind", "first", "count", "who"}``, the oldest first.

    With ``runs`` it happened to those only (:func:`happened_to`). A requeue has the jobs' former ``reason`` and, by
    index as text, the last line of the ``errors`` that were kept; a cancel, or an end of the batch, which jobs ``ran``.
    """
    return [json.loads(text) for text in connection.command("LRANGE", keys.events(batch_id), 0, -1)]


def happened_to(event: Mapping[str, Any], index: int) -> bool:
    """Whether this event happened to this job."""
    runs = event.get("runs") or [event["first"], event["count"]]
    return any(first <= index < first + count for first, count in zip(runs[::2], runs[1::2], strict=True))
