"""What tests of results files share: batches that have run without a worker, and the rows that were written."""

import csv
from pathlib import Path

import numpy as np

from common.batch import BatchSpec
from common.ledger import Connection, control, ranges, workers
from common.submission import Submitter
from tests.support import slice_of

JOBS = 100
FAILED = (3, 10, 55)


def run(connection: Connection, batch: int, *, most: int = JOBS) -> None:
    """Complete ``most`` jobs with random values; some fail."""
    rng = np.random.default_rng(1)
    workers.slot_number(connection, "w/0")
    done = 0
    while done < most:
        lease, _ = ranges.claim(connection, (batch, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
        assert lease is not None
        count = min(lease.count, most - done)
        failed = [index for index in FAILED if lease.first <= index < lease.first + count]
        work = slice_of(lease.first, rng.normal(500, 20, count).tolist(), failed=failed)
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1, give_back=True)
        done += count


def mixed_batch(submitter: Submitter, connection: Connection) -> BatchSpec:
    """An ended batch with completed, failed and cancelled jobs."""
    spec = submitter.submit(JOBS, 2**53 - 1)
    run(connection, spec.id, most=90)
    assert control.cancel(connection, spec.id)[0] == 10
    return spec


def rows(place: Path) -> list[dict[str, str]]:
    """The rows of results.csv as text."""
    with (place / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))
