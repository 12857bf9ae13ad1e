"""Jobs that fail and are tried again: parked until their time, counted, and given up after the last try."""

import random

import numpy as np
import pytest

from common.batch import JobState
from common.ledger import Connection, batches, control, keys, ranges
from common.ledger.table import read, record_dtype
from tests.integration.ledger_support import (
    assert_consistent,
    claim,
    commit,
    make_due,
    run_all,
    spans,
    states,
    submit,
    take,
)
from tests.support import OUTPUTS, counted


def now(connection: Connection) -> float:
    """Redis's time, s."""
    seconds, microseconds = connection.command("TIME")
    return int(seconds) + int(microseconds) / 1e6


def test_failed_jobs_are_parked_for_their_delay(ledger: Connection) -> None:
    """They are PENDING, nobody can claim them, and they are due after the delay that the slot chose."""
    spec = submit(ledger, 3, retries=1)
    for _ in range(3):
        lease = take(ledger)
        before = now(ledger)
        commit(ledger, lease, 1, retried=[2], delay=100.0)
        if lease.first == 2:
            [(_, score)] = ledger.redis.zrange(keys.parked(spec.id), 0, -1, withscores=True)
            assert before + 100 <= score <= now(ledger) + 100
        assert_consistent(ledger)
    assert counted(ledger, spec.id) == {"COMPLETED": 2, "PENDING": 1}
    assert claim(ledger) is None
    assert ranges.release(ledger) == []
    assert not batches.view(ledger, spec.id).ended


def test_release_offers_what_is_due_and_nothing_else(ledger: Connection) -> None:
    """Of two parked ranges the one whose time has come is claimable, with a ticket; the other waits on."""
    spec = submit(ledger, 2, retries=1)
    for _ in range(2):
        commit(ledger, take(ledger), 1, retried=[1, 2], delay=100.0)
    due = next(t for t in ranges.open_ranges(ledger, spec.id) if t.first == 2)
    ledger.command("ZADD", keys.parked(spec.id), "XX", 1, due.token)
    ledger.command("ZADD", keys.PARKED, "XX", 1, spec.id)
    assert ranges.release(ledger) == [due]
    assert_consistent(ledger)
    assert float(ledger.command("ZSCORE", keys.PARKED, spec.id)) > now(ledger)
    assert ranges.release(ledger) == []
    lease = take(ledger)
    assert (lease.first, lease.attempt, lease.tries) == (2, 2, 1)
    assert claim(ledger) is None


def test_attempts_and_tries_are_counted_to_the_end(ledger: Connection) -> None:
    """Each round is one more attempt; the last one's failure is the job's end, with its own error."""
    spec = submit(ledger, 1, retries=3)
    for attempt in range(1, 4):
        lease = take(ledger)
        assert (lease.attempt, lease.tries) == (attempt, attempt - 1)
        assert commit(ledger, lease, 1, retried=[1]).word == "done"
        assert batches.failures(ledger, spec.id) == {}
        assert_consistent(ledger)
        make_due(ledger, spec.id)
        assert len(ranges.release(ledger)) == 1
    lease = take(ledger)
    assert (lease.attempt, lease.tries) == (4, 3)
    verdict = commit(ledger, lease, 1, failed=[1])
    assert (verdict.word, verdict.ended) == ("done", True)
    assert batches.failures(ledger, spec.id) == {1: "ValueError: made by hand"}
    [record] = read(ledger, spec.id, 1, 1, record_dtype(OUTPUTS))
    assert (record["state"], record["attempt"]) == (JobState.FAILED, 4)
    kinds = [event["kind"] for event in control.events(ledger, spec.id)]
    assert kinds == ["failed, tried again"] * 3


def test_a_retry_that_completes_leaves_no_trace_of_failure(ledger: Connection) -> None:
    """The job is COMPLETED like any other, at its second attempt, and in the statistics once."""
    spec = submit(ledger, 1, retries=1)
    commit(ledger, take(ledger), 1, retried=[1])
    assert batches.statistics(ledger, spec.id, OUTPUTS) == {}
    make_due(ledger, spec.id)
    ranges.release(ledger)
    assert commit(ledger, take(ledger), 1, value=7.0).ended
    assert counted(ledger, spec.id) == {"COMPLETED": 1}
    assert batches.failures(ledger, spec.id) == {}
    assert batches.statistics(ledger, spec.id, OUTPUTS)["sum"].n == 1


def test_contiguous_failures_share_a_range(ledger: Connection) -> None:
    """Jobs that failed one beside the other come back as one range, others as ranges of their own."""
    spec = submit(ledger, 20, ranges=[(1, 20)], retries=1)
    commit(ledger, take(ledger), 20, retried=[3, 4, 5, 9, 20])
    assert sorted(spans(ledger, keys.parked(spec.id))) == [(3, 3), (9, 1), (20, 1)]
    assert counted(ledger, spec.id) == {"COMPLETED": 15, "PENDING": 5}
    make_due(ledger, spec.id)
    ranges.release(ledger)
    assert sorted(run_all(ledger)) == [3, 4, 5, 9, 20]
    assert counted(ledger, spec.id) == {"COMPLETED": 20}


def test_a_batch_whose_all_failed_is_still_open(ledger: Connection) -> None:
    """A slice of nothing but retries ends no batch and adds no statistics; its slot goes on to other work."""
    spec, other = submit(ledger, 5, ranges=[(1, 5)], retries=1), submit(ledger, 1)
    lease = take(ledger, spec.id)
    verdict = commit(ledger, lease, 5, retried=[1, 2, 3, 4, 5])
    assert (verdict.word, verdict.ended) == ("done", False)
    assert spans(ledger, keys.parked(spec.id)) == [(1, 5)]
    assert take(ledger).batch == other.id


def test_a_commit_of_retries_sent_twice_parks_once(ledger: Connection) -> None:
    """An answer that was lost on the way does not make a job run twice."""
    spec = submit(ledger, 10, ranges=[(1, 10)], retries=1)
    lease = take(ledger)
    commit(ledger, lease, 4, retried=[2])
    assert commit(ledger, lease, 4, retried=[2]).word == "continue"
    assert spans(ledger, keys.parked(spec.id)) == [(2, 1)]
    assert counted(ledger, spec.id) == {"COMPLETED": 3, "PENDING": 6, "RUNNING": 1}


def test_a_retry_that_is_lost_with_its_worker_keeps_its_tries(ledger: Connection) -> None:
    """A loss is one more attempt and no further try."""
    spec = submit(ledger, 1, retries=2)
    commit(ledger, take(ledger), 1, retried=[1])
    make_due(ledger, spec.id)
    ranges.release(ledger)
    ranges.reclaim(ledger, [take(ledger).token])
    lease = take(ledger)
    assert (lease.attempt, lease.tries, lease.lost) == (3, 1, 1)
    commit(ledger, lease, 1, retried=[1])
    make_due(ledger, spec.id)
    ranges.release(ledger)
    lease = take(ledger)
    assert (lease.attempt, lease.tries, lease.lost) == (4, 2, 0)


def test_what_is_due_of_a_held_batch_waits_for_its_release(ledger: Connection) -> None:
    """The time of a parked range may come while its batch is held: it then waits like the others."""
    spec = submit(ledger, 1, retries=1)
    commit(ledger, take(ledger), 1, retried=[1])
    control.adjust(ledger, spec.id, "held", 1)
    make_due(ledger, spec.id)
    assert ranges.release(ledger) == []
    assert_consistent(ledger)
    assert claim(ledger) is None
    assert len(control.adjust(ledger, spec.id, "held", 0)) == 1
    assert take(ledger).tries == 1


@pytest.mark.parametrize("seed", range(5))
def test_everything_ends_however_often_it_fails(ledger: Connection, seed: int) -> None:
    """Random failures, retries and releases: each job ends once, after at most retries + 1 attempts."""
    rng = random.Random(seed)
    jobs, retries = 40, 3
    spec = submit(ledger, jobs, ranges=[(1, 13), (14, 20), (34, 7)], retries=retries)
    while not batches.view(ledger, spec.id).ended:
        make_due(ledger, spec.id)
        ranges.release(ledger)
        while (lease := claim(ledger)) is not None:
            done = rng.randint(1, lease.count)
            bad = [index for index in range(lease.first, lease.first + done) if rng.random() < 0.6]
            how = {"failed": bad} if lease.tries == retries else {"retried": bad}
            commit(ledger, lease, done, give_back=True, **how)  # type: ignore[arg-type]
        assert_consistent(ledger)
    found = np.array(states(ledger, spec.id))
    attempts = read(ledger, spec.id, 1, jobs, record_dtype(OUTPUTS))["attempt"]
    assert set(found) <= {"COMPLETED", "FAILED"}
    assert attempts.max() <= retries + 1
    assert (attempts[found == "FAILED"] == retries + 1).all()
