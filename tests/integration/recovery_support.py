"""What recovery tests do: run some jobs with their real files, recover, and look at what waits or is whole."""

from pathlib import Path

from common import outputs, queue, results
from common.audit import audit, verify
from common.batch import BatchSpec
from common.job_writer import JobWriter
from common.jobs import Jobs
from common.ledger import Connection, batches, ranges
from common.ledger.ranges import Lease
from common.recovery import recover
from services.worker.finish import finish as write_results
from tests.support import counted, expected_files, expected_row, files, slice_of

SEED = 42


def again(connection: Connection, redis_url: str, root: Path) -> int:
    """What a worker does in each round."""
    return recover(connection, queue.make_app(redis_url), root)


def run_jobs(connection: Connection, root: Path, batch: int, most: int | None = None) -> list[int]:
    """Run what waits as slots do, with the real results in the batch's mode; returns which jobs.

    At most ``most``, the rest waits.
    """
    ran: list[int] = []
    while most is None or len(ran) < most:
        lease = claim(connection, batch)
        if lease is None:
            break
        spec = batches.view(connection, lease.batch).spec
        done = lease.count if most is None else min(lease.count, most - len(ran))
        indices = range(lease.first, lease.first + done)
        with results.writer(root, spec, "t", "none") as writer:
            for index in indices:
                writer.write(index, Jobs(spec).result(index)[0])
            writer.sync()
        work = slice_of(lease.first, [float(expected_row(spec.seed, index)[1]) for index in indices])
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1, give_back=True)
        ran += indices
    return sorted(ran)


def write_job(root: Path, spec: BatchSpec, index: int) -> None:
    """Put a job's file into place as a slot does."""
    with JobWriter(root, spec, "t", "none") as writer:
        writer.write(index, Jobs(spec).result(index)[0])


def claim(connection: Connection, batch: int) -> Lease | None:
    """Take a range as a slot would."""
    return ranges.claim(connection, (batch, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)[0]


def waiting(connection: Connection, batch: int) -> list[int]:
    """The jobs of all open ranges."""
    found = ranges.open_ranges(connection, batch)
    return sorted(index for t in found for index in range(t.first, t.first + t.count))


def assert_whole(connection: Connection, root: Path, spec: BatchSpec) -> None:
    """Every job is COMPLETED, with the bytes of an undisturbed run; results are written and the audit is empty."""
    assert counted(connection, spec.id) == {"COMPLETED": spec.jobs}
    assert write_results(connection, root, spec.id, "w")
    assert audit(connection, root, spec.id) == []
    assert verify(root, spec, sample=spec.jobs) == []
    assert files(outputs.locate(root, spec)) == expected_files(spec.seed, spec.jobs)
