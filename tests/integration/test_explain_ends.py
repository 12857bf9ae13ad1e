"""Why jobs ended as they did: each reason is brought about, and what is said names it, the facts, and a way on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from common.batch import JobState, Reason
from common.explain import explain_batch, explain_job
from common.ledger import Connection, batches, control, keys, ranges
from common.ledger.ranges import MAX_FAILURES_KEPT, Lease
from common.ledger.table import record_dtype
from tests.integration.explain_support import check
from tests.integration.ledger_support import claim, commit, expire, requeue, run_all, strike, submit, take
from tests.support import OUTPUTS, slice_of


def fail(connection: Connection, lease: Lease, failed: Sequence[int], reason: Reason, state: JobState) -> None:
    """Commit the lease whole, with records that say why jobs ended so."""
    work = slice_of(lease.first, [5.0] * lease.count, failed=failed, attempt=lease.attempt)
    records = np.frombuffer(bytearray(work.records), dtype=record_dtype(OUTPUTS))
    bad = [index - lease.first for index in failed]
    records["reason"][bad], records["state"][bad] = reason, state
    counted = {state if key is JobState.FAILED else key: count for key, count in work.states.items()}
    work = replace(work, records=records.tobytes(), states=counted)
    ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1)


def test_non_zero_exit_code(ledger: Connection) -> None:
    """NonZeroExitCode: how many, which, the first error in short, and a job's error in full."""
    spec = submit(ledger, 9, ranges=[(1, 9)])
    fail(ledger, take(ledger), [2, 3, 4, 5, 6, 7], Reason.NonZeroExitCode, JobState.FAILED)
    found = explain_batch(ledger, spec.id)
    check(
        found, "FAILED", "NonZeroExitCode", f"6 jobs FAILED (NonZeroExitCode): {spec.id}_2, {spec.id}_3",
        "_6 …", f"3 jobs COMPLETED: {spec.id}_1", f"First error, of job {spec.id}_2: ValueError: made by hand",
    )  # fmt: skip
    check(explain_job(ledger, spec.id, 2), "FAILED", "NonZeroExitCode", "Attempt 1 began", "Error: ValueError: made")
    check(explain_job(ledger, spec.id, 1), "COMPLETED", "", "Attempt 1 began", "took 0.5 s")
    assert explain_job(ledger, spec.id, 1).advice == "nothing"


@pytest.mark.parametrize(
    ("kept", "said"),
    [(1, "most likely it was lost with its process"), (MAX_FAILURES_KEPT, "only the first 1,000 of a")],
)
def test_an_error_that_was_not_kept(ledger: Connection, kept: int, said: str) -> None:
    """The job says so, rather than nothing; there being many texts is the reason only when there are many."""
    spec = submit(ledger, kept + 1, ranges=[(1, kept), (kept + 1, 1)])
    fail(ledger, take(ledger), range(1, kept + 1), Reason.NonZeroExitCode, JobState.FAILED)
    fail(ledger, take(ledger), [kept + 1], Reason.NonZeroExitCode, JobState.FAILED)
    # With few texts nothing but a dead process loses one.
    ledger.command("HDEL", keys.failures(spec.id), kept + 1)
    assert len(batches.failures(ledger, spec.id)) == kept
    check(explain_job(ledger, spec.id, kept + 1), "FAILED", "NonZeroExitCode", f"Its error text was not kept; {said}")


def test_crash_limit(ledger: Connection) -> None:
    """CrashLimit: the signal, how often, and each crash in its history."""
    spec = submit(ledger, 2, crash_limit=2)
    for _ in range(2):
        strike(ledger, take(ledger), 1, limit=2)
    run_all(ledger)
    check(explain_batch(ledger, spec.id), "FAILED", "CrashLimit", "1 job FAILED (CrashLimit)", "lost 2 times")
    found = explain_job(ledger, spec.id, 1)
    check(found, "FAILED", "CrashLimit", "ended by signal 9", "Error: it died", "process died: w/0")
    assert sum("process died" in line for line in found.details) == 2


def test_a_lost_worker(ledger: Connection) -> None:
    """Why a job ran twice."""
    spec = submit(ledger, 1)
    lease = take(ledger)
    expire(ledger, lease)
    ranges.reclaim(ledger)
    run_all(ledger)
    check(explain_job(ledger, spec.id, 1), "COMPLETED", "", "Attempt 2 began", "worker lost: w")
    check(explain_batch(ledger, spec.id), "COMPLETED", "", "lost once")


def test_what_a_lost_worker_may_not_have_come_to(ledger: Connection) -> None:
    """Only the first job that it had in hand is known to have been its next one; what had ended, nobody is told of."""
    spec = submit(ledger, 6, ranges=[(1, 6)])
    lease = take(ledger)
    commit(ledger, lease, 2)
    ranges.reclaim(ledger, [lease.token])
    while (again := claim(ledger)) is not None:
        commit(ledger, again, again.count)
    history = ["\n".join(explain_job(ledger, spec.id, index).details) for index in range(1, 7)]
    assert ["worker lost" in text for text in history] == [False, False, True, True, True, True]
    assert ["worker lost: w" in text for text in history[2:]] == [True, False, False, False]
    assert all("worker lost that was at job 3 or later, and may not have come to this one: w" in t for t in history[3:])


@pytest.mark.parametrize(
    ("state", "reason", "options", "fact", "advised"),
    [
        (JobState.TIMEOUT, "TimeLimit", {"time_limit_seconds": 1.5}, "time limit is 1.5 s", "--time-limit-seconds 3"),
        (JobState.OUT_OF_MEMORY, "OutOfMemory", {"memory_limit_mb": 64}, "limit is 64 MB", "--memory-limit-mb 128"),
    ],
)
@pytest.mark.parametrize("killed", [False, True])
def test_limits(
    ledger: Connection, state: JobState, reason: str, options: dict[str, float], fact: str, advised: str, killed: bool
) -> None:
    """TimeLimit and OutOfMemory: the limit, and the command that submits it with a higher one."""
    spec = submit(ledger, 2, ranges=[(1, 2)], **options)
    lease = take(ledger)
    if killed:
        strike(ledger, lease, 2, state=state)
        run_all(ledger)
    else:
        fail(ledger, lease, [2], Reason[reason], state)
    found = explain_job(ledger, spec.id, 2)
    check(found, state.name, reason, fact)
    check(explain_batch(ledger, spec.id), "FAILED", reason, f"1 job {state.name} ({reason}): {spec.id}_2")
    for advice in (found.advice, explain_batch(ledger, spec.id).advice):
        assert advised in advice
        assert "--seed 1" in advice


def test_max_fails(ledger: Connection) -> None:
    """MaxFails: how many were allowed, and the command that runs again what failed and what was given up."""
    spec = submit(ledger, 20, ranges=[(1, 4), (5, 16)], max_fails=1)
    fail(ledger, take(ledger), [1, 3], Reason.NonZeroExitCode, JobState.FAILED)
    check(explain_batch(ledger, spec.id), "FAILED", "MaxFails", "16 jobs ABORTED (MaxFails)", "2 jobs FAILED")
    found = explain_job(ledger, spec.id, 20)
    check(
        found,
        "ABORTED",
        "MaxFails",
        "More jobs failed than max_fails allowed",
        "max_fails is 1 now",
        "ABORTED MaxFails",
    )
    assert f"batchsim requeue {spec.id} --state ABORTED --state FAILED" in found.advice
    again = f"`batchsim update {spec.id} --max-fails 4`, then `batchsim requeue {spec.id} --state ABORTED`"
    assert again in found.advice
    check(explain_job(ledger, spec.id, 3), "FAILED", "NonZeroExitCode")
    assert not any("ABORTED" in line for line in explain_job(ledger, spec.id, 2).details), "it had completed before"


def test_cancelled(ledger: Connection) -> None:
    """No reason but a person; when, and how to run it after all."""
    spec = submit(ledger, 4, ranges=[(1, 2), (3, 2)])
    commit(ledger, take(ledger), 2)
    control.cancel(ledger, spec.id)
    check(explain_batch(ledger, spec.id), "CANCELLED", "", "2 jobs CANCELLED", "2 jobs COMPLETED")
    found = explain_job(ledger, spec.id, 4)
    check(found, "CANCELLED", "", "CANCELLED")
    assert f"batchsim requeue {spec.id} --state CANCELLED" in found.advice
    assert not any("CANCELLED" in line for line in explain_job(ledger, spec.id, 1).details)
    assert requeue(ledger, spec.id, [(3, 2, JobState.CANCELLED, 0)]) is not None
    run_all(ledger)
    again = explain_job(ledger, spec.id, 4)
    check(again, "COMPLETED", "", "CANCELLED", "requeued, was CANCELLED")


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("state", [state for state in JobState if state > JobState.COMPLETED])
def test_whatever_the_end_something_is_advised(ledger: Connection, state: JobState, reason: Reason) -> None:
    """Every state with every reason; only what completed needs nothing."""
    spec = submit(ledger, 2, time_limit_seconds=1.0, memory_limit_mb=1, max_fails=2)
    commit(ledger, take(ledger), 1)
    if state is JobState.ABORTED:
        control.abort(ledger, spec.id, reason)
    else:
        fail(ledger, take(ledger), [2], reason, state)
    for found in (explain_batch(ledger, spec.id), explain_job(ledger, spec.id, 2)):
        assert found.reason == (reason.name if reason else "")
        assert found.advice != "nothing"
        check(found, found.state, found.reason)
    assert explain_job(ledger, spec.id, 1).advice == "nothing"


def test_several_reasons_have_a_line_each(ledger: Connection) -> None:
    """The most frequent first; those with one advice share its line; the head names the most frequent."""
    spec = submit(ledger, 20, time_limit_seconds=1.5)
    ends = [
        *[(Reason.NonZeroExitCode, JobState.FAILED)] * 2,
        *[(Reason.TimeLimit, JobState.TIMEOUT)] * 3,
        (Reason.RaisedSignal, JobState.FAILED),
    ]
    for reason, state in ends:
        lease = take(ledger)
        fail(ledger, lease, [lease.first], reason, state)
    run_all(ledger)
    found = explain_batch(ledger, spec.id)
    check(
        found, "FAILED", "TimeLimit", "3 jobs TIMEOUT (TimeLimit)", "2 jobs FAILED (NonZ", "1 job FAILED (RaisedSignal)"
    )
    limit, error = found.advice.split("\n")
    assert limit.startswith("TimeLimit: submit it with a higher limit")
    assert "--time-limit-seconds 3`" in limit
    assert error == f"NonZeroExitCode, RaisedSignal: {explain_job(ledger, spec.id, 1).advice}"


def test_what_was_cancelled_beside_what_failed(ledger: Connection) -> None:
    """A state without a reason has its line, too."""
    spec = submit(ledger, 5, ranges=[(1, 2), (3, 3)])
    fail(ledger, take(ledger), [1], Reason.NonZeroExitCode, JobState.FAILED)
    control.cancel(ledger, spec.id)
    found = explain_batch(ledger, spec.id)
    check(found, "FAILED", "NonZeroExitCode", "3 jobs CANCELLED", "1 job FAILED (NonZeroExitCode)")
    cancelled, failed = found.advice.split("\n")
    assert cancelled.startswith("CANCELLED: nothing; or")
    assert failed.startswith("NonZeroExitCode: see the error")
