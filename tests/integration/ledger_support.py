"""A slot's steps on the ledger by hand: submit, claim, commit; no files, no messages."""

import itertools

from common.batch import BatchSpec
from common.ledger import Connection, batches, keys, ranges
from common.ledger.ranges import Lease, Verdict
from tests.support import slice_of

SLICE_SECONDS = 1.0
ids = itertools.count(1)


def submit(connection: Connection, jobs: int, *, slots: int = 0, startup: bool = False) -> BatchSpec:
    """A new batch in the ledger; no files, no messages."""
    spec = BatchSpec(next(ids), jobs, 1, startup=startup)
    batches.submit(connection, spec, slots=slots)
    return spec


def claim(
    connection: Connection, batch: int = 0, token: str = "", *, lease: float = 60.0, most: int = 0
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
    )
    return found


def take(connection: Connection, batch: int = 0, token: str = "", *, lease: float = 60.0, most: int = 0) -> Lease:
    """Take a range that must be there."""
    found = claim(connection, batch, token, lease=lease, most=most)
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
) -> Verdict:
    """Commit the next ``done`` jobs of the lease, each with this value."""
    work = slice_of(lease.first, [value] * done, seconds=seconds)
    return ranges.commit(connection, lease, work, lease_seconds=60.0, slice_seconds=SLICE_SECONDS, give_back=give_back)


def after(lease: Lease, verdict: Verdict) -> Lease:
    """The lease as its holder goes on with it."""
    return Lease(lease.token, lease.batch, verdict.first, verdict.count, 0)


def expire(connection: Connection, lease: Lease) -> None:
    """Let the lease's time be over."""
    connection.command("ZADD", keys.LEASES, "XX", 1, lease.token)
