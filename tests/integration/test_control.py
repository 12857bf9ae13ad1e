"""What people do to a batch, whole: the ledger moves, control.json keeps it, the tickets are published."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import outputs, queue, recovery, results
from common.audit import audit
from common.batch import BatchSpec, JobState
from common.control import Controller
from common.errors import Conflict, InvalidInput, NotFound
from common.job_writer import JobWriter
from common.jobs import Jobs
from common.ledger import Connection, batches, ranges
from common.options import read_options
from common.requeue import MOST_RUNS
from common.submission import Submitter
from services.worker.finish import finish as write_results
from tests.integration.ledger_support import assert_consistent, commit, finished, run_all, states, take
from tests.integration.recovery_support import assert_whole, run_jobs
from tests.support import counted, files

SEED = 42


def submit(submitter: Submitter, jobs: int, **options: Any) -> BatchSpec:
    """A batch with its directory."""
    return submitter.submit(jobs, SEED, options=read_options(options))


def noted(root: Path, spec: BatchSpec) -> dict[str, Any]:
    """What its control.json says."""
    found: dict[str, Any] = json.loads((root / str(spec.id) / outputs.CONTROL_NAME).read_text())
    return found


def forget(connection: Connection, redis_url: str, root: Path, spec: BatchSpec) -> None:
    """Redis is emptied; the batch comes back from its files."""
    connection.command("FLUSHALL")
    batches.mark(connection)
    recovery.rebuild(connection, queue.make_app(redis_url), root / str(spec.id), spec)


def messages(connection: Connection) -> int:
    """How many messages are in the queue."""
    return int(connection.command("LLEN", queue.QUEUE))


def test_cancel_of_parts_outlives_redis(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path
) -> None:
    """What was cancelled stays so, what had completed stays too, and the rest runs."""
    spec = submit(submitter, 30)
    ran = run_jobs(ledger, root, spec.id, 5)
    assert controller.cancel(spec.id, [(1, 10), (21, 22)]) == 12 - len(set(ran) & {*range(1, 11), 21, 22})
    assert noted(root, spec)["cancelled"] == [[1, 10], [21, 2]]
    before = states(ledger, spec.id)
    forget(ledger, redis_url, root, spec)
    assert_consistent(ledger)
    assert states(ledger, spec.id) == before
    run_jobs(ledger, root, spec.id)
    assert counted(ledger, spec.id)["CANCELLED"] == before.count("CANCELLED")
    assert batches.view(ledger, spec.id).ended


def test_cancel_of_all_outlives_redis(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path
) -> None:
    """The batch has ended, and does so again."""
    spec = submit(submitter, 30)
    assert controller.cancel(spec.id) == 30
    assert controller.cancel(spec.id) == 0
    forget(ledger, redis_url, root, spec)
    assert counted(ledger, spec.id) == {"CANCELLED": 30}
    assert batches.view(ledger, spec.id).ended


def test_what_was_adjusted_outlives_redis(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path
) -> None:
    """The last of each, not what the batch began with."""
    spec = submit(submitter, 10, throttle=5, priority=1)
    for field, value in (("held", 1), ("throttle", 3), ("throttle", 2), ("priority", -7), ("max_fails", 4)):
        controller.adjust(spec.id, field, value)  # type: ignore[arg-type]
    forget(ledger, redis_url, root, spec)
    view = batches.view(ledger, spec.id)
    assert (view.state, view.held, view.throttle, view.priority, view.max_fails) == ("HELD", True, 2, -7, 4)
    assert_consistent(ledger)
    sent = messages(ledger)
    assert controller.adjust(spec.id, "held", 0).state == "PENDING"
    assert messages(ledger) == sent + 1
    forget(ledger, redis_url, root, spec)
    assert batches.view(ledger, spec.id).state == "PENDING"


def test_a_dependent_batch_outlives_redis(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path
) -> None:
    """What it waits for may be known from its summary alone."""
    good, bad = submit(submitter, 3), submit(submitter, 3)
    after = [submit(submitter, 3, dependency=f"afterok:{on.id}") for on in (good, bad)]
    run_jobs(ledger, root, good.id, 3) if ranges.open_ranges(ledger, good.id) else None
    controller.cancel(bad.id)
    while not batches.view(ledger, good.id).ended:
        run_jobs(ledger, root, good.id, 1)
    for spec in (good, bad):
        assert write_results(ledger, root, spec.id, "w")
    ledger.command("FLUSHALL")
    assert recovery.recover(ledger, queue.make_app(redis_url), root) == 2
    assert [(batches.view(ledger, s.id).unmet, batches.view(ledger, s.id).never) for s in after] == [(0, 0), (1, 1)]


def test_an_ended_batch_is_not_adjusted(submitter: Submitter, controller: Controller, ledger: Connection) -> None:
    """There is nothing left to hold."""
    spec = submit(submitter, 1)
    controller.cancel(spec.id)
    with pytest.raises(Conflict):
        controller.adjust(spec.id, "held", 1)
    with pytest.raises(NotFound):
        controller.cancel(99)


def failed(connection: Connection, root: Path, spec: BatchSpec, bad: set[int]) -> None:
    """Run all; those in ``bad`` fail and have no file."""
    run_jobs_except(connection, root, spec, bad)
    assert write_results(connection, root, spec.id, "w")


def run_jobs_except(connection: Connection, root: Path, spec: BatchSpec, bad: set[int]) -> None:
    """Run what waits with real results and files, but for those in ``bad``, which fail."""
    from tests.integration.recovery_support import claim, write_job
    from tests.support import expected_row, slice_of

    while (lease := claim(connection, spec.id)) is not None:
        span = range(lease.first, lease.first + lease.count)
        for index in set(span) - bad:
            write_job(root, spec, index)
        values = [float(expected_row(spec.seed, index)[1]) for index in span]
        work = slice_of(lease.first, values, failed=sorted(set(span) & bad), attempt=lease.attempt)
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1)


def test_failed_jobs_are_run_again_to_a_whole_batch(
    submitter: Submitter, controller: Controller, ledger: Connection, root: Path
) -> None:
    """With the same bytes as if they had never failed, results written anew, and the audit empty."""
    spec = submit(submitter, 20)
    failed(ledger, root, spec, {3, 4, 11})
    assert counted(ledger, spec.id) == {"COMPLETED": 17, "FAILED": 3}
    assert controller.requeue(spec.id) == 3
    assert not (root / str(spec.id) / outputs.SUMMARY_NAME).exists()
    assert_consistent(ledger)
    run_jobs(ledger, root, spec.id)
    assert_whole(ledger, root, spec)
    assert controller.requeue(spec.id) == 0


def test_results_whose_file_is_missing_are_run_again(
    submitter: Submitter, controller: Controller, ledger: Connection, root: Path
) -> None:
    """Gone or torn; the statistics count each job once."""
    spec = submit(submitter, 20)
    failed(ledger, root, spec, set())
    place = root / str(spec.id)
    (place / "job_5.csv").unlink()
    (place / "job_6.csv").write_bytes(b"numbers,sum")
    (place / "job_19.csv").write_bytes(b"")
    assert controller.requeue(spec.id, missing=True) == 3
    assert batches.statistics(ledger, spec.id, ("sum",))["sum"].n == 17
    assert [index for index, state in enumerate(states(ledger, spec.id), 1) if state == "PENDING"] == [5, 6, 19]
    run_jobs(ledger, root, spec.id)
    assert_whole(ledger, root, spec)


def test_very_many_missing_results_are_run_again(
    submitter: Submitter, controller: Controller, ledger: Connection, root: Path
) -> None:
    """More runs than one step of the ledger takes."""
    spec = submit(submitter, 2 * MOST_RUNS + 200)
    run_all(ledger)
    finished(ledger, spec.id)
    for index in range(1, spec.jobs + 1, 2):
        JobWriter(root, spec, "t", "none").close()
        with JobWriter(root, spec, "t", "none") as writer:
            writer.write(index, b"sum,mean\r\n1,0.1\r\n")
    assert controller.requeue(spec.id, missing=True) == spec.jobs // 2


def test_what_still_runs_has_nothing_missing(submitter: Submitter, controller: Controller, ledger: Connection) -> None:
    """And only what has ended without completing is run again."""
    spec = submit(submitter, 2)
    commit(ledger, take(ledger), 1)
    with pytest.raises(Conflict):
        controller.requeue(spec.id, missing=True)
    for state in (JobState.PENDING, JobState.RUNNING, JobState.COMPLETED):
        with pytest.raises(InvalidInput):
            controller.requeue(spec.id, [state])


def test_cancelled_jobs_that_run_again_do_so_after_a_rebuild_too(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path
) -> None:
    """The cancel is taken back on the volume as well."""
    spec = submit(submitter, 10)
    controller.cancel(spec.id, [(4, 6)])
    run_jobs(ledger, root, spec.id)
    assert write_results(ledger, root, spec.id, "w")
    assert controller.requeue(spec.id, [JobState.CANCELLED]) == 3
    forget(ledger, redis_url, root, spec)
    assert counted(ledger, spec.id) == {"COMPLETED": 7, "PENDING": 3}
    run_jobs(ledger, root, spec.id)
    assert_whole(ledger, root, spec)


def test_a_requeue_of_failed_jobs_does_not_take_a_cancel_back(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path
) -> None:
    """What was cancelled and is not run again stays cancelled after a rebuild."""
    spec = submit(submitter, 10)
    controller.cancel(spec.id, [(4, 6)])
    failed(ledger, root, spec, {1})
    assert controller.requeue(spec.id) == 1
    forget(ledger, redis_url, root, spec)
    assert counted(ledger, spec.id) == {"COMPLETED": 6, "PENDING": 1, "CANCELLED": 3}


def test_a_cancel_of_what_is_pending_outlives_redis(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path
) -> None:
    """Also when it named a state instead of jobs."""
    spec = submit(submitter, 10)
    assert controller.cancel(spec.id, state="PENDING") == 10
    forget(ledger, redis_url, root, spec)
    assert counted(ledger, spec.id) == {"CANCELLED": 10}


def test_a_cancelled_batch_is_whole(
    submitter: Submitter, controller: Controller, ledger: Connection, root: Path
) -> None:
    """Its files are those of the jobs that completed, and the audit finds nothing."""
    spec = submit(submitter, 10)
    ran = run_jobs(ledger, root, spec.id, 4)
    controller.cancel(spec.id)
    assert write_results(ledger, root, spec.id, "w")
    assert audit(ledger, root, spec.id) == []
    assert sorted(files(root / str(spec.id))) == sorted(f"job_{index}.csv" for index in ran)


@pytest.mark.parametrize("mode", ["files", "packed"])
@pytest.mark.parametrize("state", ["", "PENDING"])
def test_what_was_written_and_cancelled_stays_cancelled(
    submitter: Submitter, controller: Controller, ledger: Connection, redis_url: str, root: Path, mode: str, state: str
) -> None:
    """Results whose commit the cancel came before are none, also when Redis is emptied; those committed before are."""
    spec = submit(submitter, 10, output_mode=mode)
    ran = run_jobs(ledger, root, spec.id, 2)
    written = [index for index in range(1, 11) if index not in ran][:6]
    with results.writer(root, spec, "t", "none") as writer:
        for index in written:
            writer.write(index, Jobs(spec).result(index)[0])
        writer.sync()
    jobs = sorted([*written[:4], *ran])
    assert controller.cancel(spec.id, [(index, index) for index in jobs], state=state) == 4
    for _ in range(2):
        forget(ledger, redis_url, root, spec)
        found = states(ledger, spec.id)
        assert {index for index, name in enumerate(found, 1) if name == "CANCELLED"} == set(written[:4])
        assert {index for index, name in enumerate(found, 1) if name == "COMPLETED"} == {*ran, *written[4:]}
    run_jobs(ledger, root, spec.id)
    assert write_results(ledger, root, spec.id, "w")
    assert audit(ledger, root, spec.id) == []
    assert controller.requeue(spec.id, [JobState.CANCELLED]) == 4
    run_jobs(ledger, root, spec.id)
    # What ran after all has a result like any other.
    forget(ledger, redis_url, root, spec)
    assert counted(ledger, spec.id) == {"COMPLETED": 10}
