"""A slot's steps on the ledger by hand: submit, claim, commit; no files, no messages; and what must always be true."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from common.audit import audit
from common.batch import BatchSpec, JobState, Reason
from common.ledger import Connection, batches, control, finishing, keys, ranges, table
from common.ledger.batches import BatchView
from common.ledger.control import Run
from common.ledger.ranges import DEFAULT_PARTITION, Lease, Ticket, Verdict
from common.ledger.table import record_dtype, record_packer
from common.statistics import Moments
from tests.support import OUTPUTS, slice_of

SLICE_SECONDS = 1.0
NOWHERE = Path("/nonexistent")
PRIORITY_STEP = 1e10
ids = itertools.count(1)


def submit(
    connection: Connection,
    jobs: int,
    *,
    slots: int = 0,
    ranges: Sequence[tuple[int, int]] | None = None,
    **options: Any,
) -> BatchSpec:
    """A new batch in the ledger; no files, no messages. ``options`` are fields of its specification."""
    spec = BatchSpec(next(ids), jobs, 1, **options)
    batches.submit(connection, spec, slots=slots, ranges=ranges)
    return spec


def claim(
    connection: Connection,
    batch: int = 0,
    token: str = "",
    *,
    lease: float = 60.0,
    most: int = 0,
    partition: str = DEFAULT_PARTITION,
) -> Lease | None:
    """Take a range as a slot would."""
    found, _ = ranges.claim(
        connection,
        (batch, token),
        worker="w",
        slot="w/0",
        lease_seconds=lease,
        slice_seconds=SLICE_SECONDS,
        jobs_per_task=most,
        partition=partition,
    )
    return found


def take(connection: Connection, *ticket: Any, **options: Any) -> Lease:
    """Take a range that must be there."""
    found = claim(connection, *ticket, **options)
    assert found is not None
    return found


def commit(
    connection: Connection,
    lease: Lease,
    done: int,
    *,
    value: float = 5.0,
    seconds: float = SLICE_SECONDS,
    give_back: bool = False,
    failed: Sequence[int] = (),
    retried: Sequence[int] = (),
    delay: float = 60.0,
) -> Verdict:
    """Commit the next ``done`` jobs of the lease, each with this value, but for those that failed or are retried."""
    work = slice_of(
        lease.first,
        [value] * done,
        seconds=seconds,
        failed=failed,
        retried=retried,
        attempt=lease.attempt,
        tries=lease.tries,
        delay=delay,
    )
    return ranges.commit(connection, lease, work, lease_seconds=60.0, slice_seconds=SLICE_SECONDS, give_back=give_back)


def after(lease: Lease, verdict: Verdict) -> Lease:
    """The lease as its holder goes on with it."""
    return Lease(lease.token, lease.batch, verdict.first, verdict.count, lease.attempt, lease.tries)


def strike(
    connection: Connection, lease: Lease, job: int, *, state: JobState | None = None, limit: int = 5
) -> tuple[bool, bool, tuple[str, ...]]:
    """The lease's process died while it ran this job: by itself, or killed for what ``state`` says."""
    reasons = {JobState.TIMEOUT: Reason.TimeLimit, JobState.OUT_OF_MEMORY: Reason.OutOfMemory}
    reason = reasons[state] if state else Reason.CrashLimit
    nothing = (float("nan"),) * len(OUTPUTS)
    record = record_packer(OUTPUTS).pack(
        state or JobState.FAILED, lease.attempt, 0, 0, 9, reason, 0.0, 0.0, 0.0, 0, *nothing
    )
    return ranges.strike(connection, lease.token, job, state=state, limit=limit, record=record, text="it died")


def expire(connection: Connection, lease: Lease) -> None:
    """Let the lease's time be over."""
    connection.command("ZADD", keys.LEASES, "XX", 1, lease.token)


def make_due(connection: Connection, batch: int) -> None:
    """Let the time of the batch's parked ranges come."""
    tokens = connection.command("ZRANGE", keys.parked(batch), 0, -1)
    for token in tokens:
        connection.command("ZADD", keys.parked(batch), "XX", 1, token)
    if tokens:
        connection.command("ZADD", keys.PARKED, "XX", 1, batch)


def run_all(connection: Connection, *, partition: str = DEFAULT_PARTITION, failed: Sequence[int] = ()) -> list[int]:
    """Claim and end all that can be claimed, in this order; those in ``failed`` fail."""
    ran: list[int] = []
    while (lease := claim(connection, partition=partition)) is not None:
        span = range(lease.first, lease.first + lease.count)
        commit(connection, lease, lease.count, failed=[index for index in failed if index in span])
        ran += span
    return ran


def finished(connection: Connection, batch: int) -> bool:
    """Note that the results files of a batch are written, if it has ended; here nobody writes any."""
    view = batches.view(connection, batch)
    return bool(view.ended) and finishing.finished(connection, batch, view.ended)


def requeue(
    connection: Connection, batch: int, runs: Sequence[Run], kept: Mapping[str, Moments] | None = None
) -> list[Ticket] | None:
    """Make jobs run again that have ended, of a batch that still runs or is finished."""
    if batches.exists(connection, batch):
        finished(connection, batch)
    return control.requeue(connection, batch, runs, kept)


def spans(connection: Connection, place: str) -> list[tuple[int, int]]:
    """The ranges of a zset of tokens as (first, count), in the order in which they would be served."""
    found = ranges.tickets(connection, connection.command("ZRANGE", place, 0, -1))
    return [(ticket.first, ticket.count) for ticket in found]


def states(connection: Connection, batch: int) -> list[str]:
    """The state of each job as its record, or the interval it was closed in, says."""
    jobs = batches.view(connection, batch).spec.jobs
    return [JobState(int(code)).name for code in table.page(connection, batch, 1, jobs, record_dtype(OUTPUTS))["state"]]


def assert_consistent(connection: Connection) -> None:
    """What must be true of every batch after every transition, whatever came before it."""
    everything: list[Ticket] = []
    for batch in batches.all_ids(connection):
        view = batches.view(connection, batch)
        found = ranges.open_ranges(connection, batch)
        everything += found
        _assert_counters(connection, view)
        _assert_ranges(connection, view, found)
        _assert_served(connection, view)
        # There are no files here.
        found_by_audit = [said for said in audit(connection, NOWHERE, batch, files=False) if "summary.json" not in said]
        assert found_by_audit == []
    tokens = [ticket.token for ticket in everything]
    assert len(set(tokens)) == len(tokens), "a range is in two places"
    kept = {key.decode() for key in connection.command("KEYS", keys.leased_range("*"))}
    assert kept == {keys.leased_range(token) for token in tokens}
    _assert_leases(connection, everything)


def _assert_counters(connection: Connection, view: BatchView) -> None:
    """Every job is counted once, as its record or its closed interval says."""
    page = table.page(connection, view.spec.id, 1, view.spec.jobs, record_dtype(OUTPUTS))
    seen = np.bincount(page["state"], minlength=len(JobState))
    assert sum(view.counters.values()) == view.spec.jobs, view.counters
    assert min(view.counters.values()) >= 0, view.counters
    counted = {state: view.counters[state] for state in JobState if state.terminal}
    assert counted == {state: int(seen[state]) for state in JobState if state.terminal}
    stopped = (page["state"] == JobState.ABORTED) & (page["reason"] == Reason.StopRule)
    assert view.needless == np.count_nonzero(stopped)
    bad = {index + 1 for index in np.flatnonzero(page["state"] > JobState.COMPLETED)}
    assert batches.failures(connection, view.spec.id).keys() <= bad
    open_jobs = view.counters[JobState.PENDING] + view.counters[JobState.RUNNING]
    assert bool(view.ended) == (open_jobs == 0)
    assert bool(connection.command("SISMEMBER", keys.ACTIVE, view.spec.id)) == (open_jobs > 0)
    ending = bool(view.ended) and not view.finished
    assert bool(connection.command("SISMEMBER", keys.FINISHING, view.spec.id)) == ending


def _assert_ranges(connection: Connection, view: BatchView, found: list[Ticket]) -> None:
    """The open ranges cover exactly the open jobs, each once."""
    page = table.page(connection, view.spec.id, 1, view.spec.jobs, record_dtype(OUTPUTS))
    covered = np.zeros(view.spec.jobs, dtype=np.int64)
    for ticket in found:
        assert ticket.count >= 1, ticket
        assert 1 <= ticket.first <= ticket.first + ticket.count - 1 <= view.spec.jobs, ticket
        assert ticket.partition == view.spec.partition
        covered[ticket.first - 1 : ticket.first - 1 + ticket.count] += 1
    assert (covered == (page["state"] == JobState.PENDING)).all(), found
    parked = connection.redis.zrange(keys.parked(view.spec.id), 0, 0, withscores=True)
    noted = connection.command("ZSCORE", keys.PARKED, view.spec.id)
    assert (None if noted is None else float(noted)) == (parked[0][1] if parked else None)


def _assert_served(connection: Connection, view: BatchView) -> None:
    """A batch is in its waiting set iff slots may take ranges of it, and in no other."""
    waits = int(connection.command("ZCARD", keys.ranges(view.spec.id)))
    stopping = int(connection.command("HGET", keys.batch(view.spec.id), "stopping") or 0)
    tokens = connection.command("ZRANGE", keys.STOPPING, 0, -1)
    assert stopping == sum(token.startswith(b"%d-" % view.spec.id) for token in tokens)
    taken = view.counters[JobState.RUNNING] + stopping
    room = max(0, view.throttle - taken) if view.throttle else waits
    claimable = 0 if view.held or view.unmet else min(waits, room)
    score = connection.command("ZSCORE", keys.waiting(view.spec.partition), view.spec.id)
    assert (score is not None) == (claimable > 0), (view, waits)
    if score is not None:
        served = float(connection.command("HGET", keys.batch(view.spec.id), "served"))
        assert float(score) == served - view.priority * PRIORITY_STEP
    for other in set(ranges.partitions(connection)) - {view.spec.partition}:
        assert connection.command("ZSCORE", keys.waiting(other), view.spec.id) is None


def _assert_leases(connection: Connection, everything: list[Ticket]) -> None:
    """RUNNING and bs:leased are the leases, by batch and by partition."""
    leases = {token.decode() for token in connection.command("ZRANGE", keys.LEASES, 0, -1)}
    held = [ticket for ticket in everything if ticket.token in leases]
    assert {ticket.token for ticket in held} == leases
    by_partition = {
        name.decode(): int(count) for name, count in connection.command("HGETALL", keys.LEASED).items() if int(count)
    }
    wanted = {name: sum(t.partition == name for t in held) for name in {t.partition for t in held}}
    assert by_partition == wanted
    for batch in batches.all_ids(connection):
        running = batches.view(connection, batch).counters[JobState.RUNNING]
        assert running == sum(ticket.batch == batch for ticket in held)


def run_machine(make: Callable[[], RuleBasedStateMachine]) -> None:
    """Run a state machine over the ledger, each example on an emptied one."""
    run_state_machine_as_test(
        make,  # type: ignore[arg-type]
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            # Shrinking a failure takes minutes here; the steps up to it are printed as they were.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
