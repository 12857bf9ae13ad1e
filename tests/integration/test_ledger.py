"""The ledger's transitions on a real Redis: each moves only what may be moved, and the counters always sum up."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import queue
from common.batch import INITIAL_RANGES, BatchSpec, JobState
from common.errors import BrokerUnavailable, Conflict, NotFound
from common.ledger import Connection, batches, keys, ranges, workers
from common.ledger.ranges import MAX_CRASHES, Lease, Verdict
from common.ledger.table import SEGMENT_JOBS, read, record_dtype
from common.ledger.workers import WorkerInfo
from common.submission import Submitter
from tests.support import OUTPUTS, counted, dump, slice_of, wait_for

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


def drain(connection: Connection, batch: int) -> None:
    """Claim and complete all that waits."""
    while (lease := claim(connection)) is not None:
        commit(connection, lease, lease.count)
    assert batches.view(connection, batch).ended


# ---- submit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 5, 64, 65, 1000, 10_000_000])
def test_submit(connection: Connection, jobs: int) -> None:
    """All jobs are PENDING, the ranges cover them exactly, and nothing of the table is allocated."""
    spec = BatchSpec(next(ids), jobs, 1)
    batch, spans = batches.submit(connection, spec)
    assert batch == spec.id
    assert counted(connection, batch) == {"PENDING": jobs}
    assert len(spans) == min(jobs, INITIAL_RANGES)
    assert [first for _, first, _ in spans] == [1, *itertools.accumulate((c for *_, c in spans), initial=1)][
        1:-1
    ] or jobs == 1
    assert sum(count for *_, count in spans) == jobs
    assert len({token for token, *_ in spans}) == len(spans)
    assert all(ranges.lookup(connection, t) == ranges.Ticket(batch, t, f, c) for t, f, c in spans)
    assert not connection.command("EXISTS", keys.table(batch, 0))
    assert batches.view(connection, batch).spec == spec
    assert ranges.owed(connection, queue.QUEUE) == (len(spans), 0)


def test_submit_up_to_64_jobs_is_one_task_each_whatever_the_slots(connection: Connection) -> None:
    """NUM_JOBS=64 is 64 Celery tasks, on one slot or on a hundred."""
    for slots in (1, 100):
        _, spans = batches.submit(connection, BatchSpec(next(ids), 64, 1), slots=slots)
        assert [count for *_, count in spans] == [1] * 64


def test_new_ids_are_never_given_twice(connection: Connection) -> None:
    """Ids grow, stay above what the outputs directory knows, and are unique among concurrent submitters."""
    assert [batches.new_id(connection), batches.new_id(connection)] == [1, 2]
    assert batches.new_id(connection, floor=40) == 41
    assert batches.new_id(connection, floor=7) == 42
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(batches.new_id(connection, 90))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 8
    assert min(got) > 90


def test_idempotency_key_with_concurrent_submits(connection: Connection, root: Path) -> None:
    """Eight submits at once with one key are one batch, and each caller gets its specification."""
    submitter = Submitter(connection, queue.make_app("memory://localhost"), root)
    got: list[BatchSpec] = []
    barrier = threading.Barrier(8)

    def one() -> None:
        barrier.wait()
        got.append(submitter.submit(10, idempotency_key="k"))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len({spec.id for spec in got}) == 1
    assert connection.command("ZCARD", keys.BATCHES) == 1
    with pytest.raises(Conflict):
        submitter.submit(99, idempotency_key="k")
    left = sorted(path.name for path in root.iterdir() if path.is_dir())
    assert left == [str(got[0].id)], "a submit that came second left a directory"


def test_idempotency_key_expires_unless_it_is_for_ever(connection: Connection) -> None:
    """A key lives for its time; with 0 it never ends."""
    batches.submit(connection, BatchSpec(next(ids), 1, 1), idempotency_key="day", key_seconds=100)
    batches.submit(connection, BatchSpec(next(ids), 1, 1), idempotency_key="ever", key_seconds=0)
    assert 0 < connection.command("TTL", keys.idempotency("day")) <= 100
    assert connection.command("TTL", keys.idempotency("ever")) == -1


def test_unknown_batch(connection: Connection) -> None:
    """Looking at a batch that is not there is NotFound; cancelling it changes nothing."""
    with pytest.raises(NotFound):
        batches.view(connection, 99)
    assert batches.cancel(connection, 99) == 0
    assert dump(connection) == {}


# ---- claim and commit -----------------------------------------------------------------------------------------------


def test_claim_and_commit_step_by_step(connection: Connection) -> None:
    """The counters tell the truth at every step from submit to the end."""
    spec = submit(connection, 3)
    seen = [counted(connection, spec.id)]
    for _ in range(3):
        lease = take(connection)
        seen.append(counted(connection, spec.id))
        verdict = commit(connection, lease, 1)
        seen.append(counted(connection, spec.id))
        assert verdict.word == "done"
    assert seen == [
        {"PENDING": 3},
        {"PENDING": 2, "RUNNING": 1},
        {"PENDING": 2, "COMPLETED": 1},
        {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1},
        {"PENDING": 1, "COMPLETED": 2},
        {"RUNNING": 1, "COMPLETED": 2},
        {"COMPLETED": 3},
    ]
    view = batches.view(connection, spec.id)
    assert verdict.ended
    assert view.state == "COMPLETED"
    assert view.created <= (view.started or 0) <= (view.ended or 0)
    assert ranges.owed(connection, queue.QUEUE) == (0, 0)
    assert connection.command("SMEMBERS", keys.ACTIVE) in (set(), [])
    left = {key for key in dump(connection) if b":range:" in key}
    assert left == set()


def test_message_leads_to_its_own_range(connection: Connection) -> None:
    """With one batch the ticket tells the truth: its own range is served, though it is not the oldest."""
    spec = BatchSpec(next(ids), 5, 1)
    _, spans = batches.submit(connection, spec)
    token, first, count = spans[3]
    lease = take(connection, spec.id, token)
    assert (lease.token, lease.first, lease.count) == (token, first, count)


def test_second_delivery_finds_nothing(connection: Connection) -> None:
    """When all is taken, a message that is delivered again goes away and changes nothing."""
    spec = BatchSpec(next(ids), 1, 1)
    _, [(token, _, _)] = batches.submit(connection, spec)
    take(connection, spec.id, token)
    before = dump(connection)
    assert claim(connection, spec.id, token) is None
    assert dump(connection) == before


def test_commit_sent_twice_counts_once(connection: Connection) -> None:
    """The same commit again, as after a lost answer, says how to go on and changes nothing."""
    spec = submit(connection, 1000, slots=1)
    lease = take(connection)
    first = commit(connection, lease, 10)
    before = dump(connection)
    again = commit(connection, lease, 10)
    assert (
        (again.word, again.first, again.count)
        == (first.word, first.first, first.count)
        == ("continue", 11, lease.count - 10)
    )
    assert dump(connection) == before
    assert counted(connection, spec.id) == {"PENDING": 989, "RUNNING": 1, "COMPLETED": 10}


def test_last_commit_sent_twice_counts_once(connection: Connection) -> None:
    """A repeated commit of a finished range is refused."""
    spec = submit(connection, 2)
    lease = take(connection)
    assert commit(connection, lease, 1).word == "done"
    before = dump(connection)
    assert commit(connection, lease, 1).word == "stale"
    assert dump(connection) == before
    assert counted(connection, spec.id) == {"PENDING": 1, "COMPLETED": 1}


@pytest.mark.parametrize("how", ["expired", "named", "given back", "cancelled"])
def test_late_commit_changes_nothing_at_all(connection: Connection, how: str) -> None:
    """A commit whose lease was lost, for whatever reason, is refused, and not one byte in Redis differs."""
    spec = submit(connection, 500, slots=1)
    lease = take(connection)
    lease = after(lease, commit(connection, lease, 3))
    if how == "expired":
        expire(connection, lease)
        assert len(ranges.reclaim(connection)) == 1
    elif how == "cancelled":
        batches.cancel(connection, spec.id)
    else:
        ranges.reclaim(connection, [lease.token], crashed=how == "named")
    before = dump(connection)
    assert commit(connection, lease, 5, value=1e9) == Verdict("stale")
    assert dump(connection) == before
    other = claim(connection)
    assert (other is None) == (how == "cancelled")
    before = dump(connection)
    assert commit(connection, lease, 5).word == "stale"
    assert dump(connection) == before
    counted(connection, spec.id)


def test_commit_gives_back_at_a_job_boundary(connection: Connection) -> None:
    """With ``give_back`` the rest waits under a new token that is to be published."""
    spec = submit(connection, 1000, slots=1)
    lease = take(connection)
    verdict = commit(connection, lease, 4, give_back=True)
    assert verdict.word == "released"
    [token] = verdict.tickets
    ticket = ranges.lookup(connection, token)
    assert ticket is not None
    assert (ticket.first, ticket.count) == (lease.first + 4, lease.count - 4)
    assert counted(connection, spec.id) == {"PENDING": 996, "COMPLETED": 4}
    assert commit(connection, lease, 1).word == "stale"


def test_empty_commit_gives_all_back_and_keeps_the_crashes(connection: Connection) -> None:
    """A slice without a job done, as on a full disk, loses nothing, and does not excuse earlier crashes."""
    spec = submit(connection, 1)
    lease = take(connection)
    ranges.reclaim(connection, [lease.token])
    lease = take(connection)
    assert lease.crashes == 1
    assert commit(connection, lease, 0, give_back=True).word == "released"
    assert counted(connection, spec.id) == {"PENDING": 1}
    assert take(connection).crashes == 1


def test_records_and_statistics_across_a_segment_border(connection: Connection) -> None:
    """A slice that spans two strings of the table is read back whole."""
    jobs = SEGMENT_JOBS + 1000
    spec = submit(connection, jobs, slots=1)
    dtype = record_dtype(OUTPUTS)
    lease = next(found for found in iter(lambda: take(connection), None) if found.first + found.count > SEGMENT_JOBS)
    lease = after(lease, commit(connection, lease, SEGMENT_JOBS - lease.first - 1))
    commit(connection, lease, 6, value=77.0)
    found = read(connection, spec.id, lease.first, 7, dtype)
    assert found["state"].tolist() == [2] * 6 + [0]
    assert found["out:sum"].tolist() == [77.0] * 6 + [0.0]
    assert connection.command("EXISTS", keys.table(spec.id, 0), keys.table(spec.id, 1)) == 2


def test_failed_jobs_are_counted_and_explained(connection: Connection) -> None:
    """A FAILED job is in the counters, the table and the failures, and not in the statistics."""
    spec = submit(connection, 3)
    for index in (1, 2, 3):
        lease = take(connection)
        work = slice_of(lease.first, [float(index)], failed=[2])
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1)
    assert counted(connection, spec.id) == {"COMPLETED": 2, "FAILED": 1}
    assert batches.view(connection, spec.id).state == "FAILED"
    assert batches.failures(connection, spec.id) == {2: "ValueError: made by hand"}
    found = batches.statistics(connection, spec.id, OUTPUTS)["sum"]
    assert (found.n, found.mean, found.min, found.max) == (2, 2.0, 1.0, 3.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 150), st.integers(0, 4), st.integers(0, 2**32))
def test_statistics_equal_numpy_under_random_slicing(connection: Connection, jobs: int, slots: int, seed: int) -> None:
    """However the jobs are sliced, split, given back and lost, the statistics are those of the committed values."""
    connection.command("FLUSHALL")
    connection.command("SET", keys.SLOTS, slots)
    rng = np.random.default_rng(seed)
    values = rng.normal(1e3, 10 ** rng.uniform(-3, 6), jobs)
    spec = submit(connection, jobs, slots=1)
    while (lease := claim(connection)) is not None:
        commit_randomly(connection, lease, values, rng)
    assert counted(connection, spec.id) == {"COMPLETED": jobs}
    found = batches.statistics(connection, spec.id, OUTPUTS)["sum"]
    assert (found.n, found.min, found.max) == (jobs, values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.m2 == pytest.approx(values.var() * jobs, rel=1e-9)
    table = read(connection, spec.id, 1, jobs, record_dtype(OUTPUTS))
    assert table["out:sum"].tolist() == values.tolist()


def commit_randomly(connection: Connection, lease: Lease, values: "np.ndarray", rng: np.random.Generator) -> None:
    """Work on a lease in slices of random size, until it is done, given back, or lost."""
    current: Lease | None = lease
    while current is not None:
        done = int(rng.integers(1, current.count + 1))
        work = slice_of(current.first, values[current.first - 1 :][:done].tolist())
        if rng.random() < 0.1:
            ranges.reclaim(connection, [current.token], crashed=False)
        give_back = bool(rng.random() < 0.3)
        verdict = ranges.commit(connection, current, work, lease_seconds=60, slice_seconds=1, give_back=give_back)
        counted(connection, current.batch)
        current = after(current, verdict) if verdict.word == "continue" else None


# ---- renew and reclaim ----------------------------------------------------------------------------------------------


def test_renew(connection: Connection) -> None:
    """A held lease gets its new time, a lost one is named, and none comes to life again."""
    submit(connection, 3)
    held, lost = take(connection, lease=1.0), take(connection)
    ranges.reclaim(connection, [lost.token])
    assert ranges.renew(connection, [held.token, lost.token, "nonsense"], lease_seconds=500) == [lost.token, "nonsense"]
    seconds = int(connection.command("TIME")[0])
    assert float(connection.command("ZSCORE", keys.LEASES, held.token)) > seconds + 400
    assert connection.command("ZCARD", keys.LEASES) == 1
    assert ranges.renew(connection, [], lease_seconds=5) == []


def test_reclaim_takes_only_what_ran_out(connection: Connection) -> None:
    """A lease that runs is left alone; one whose time is over is offered under a new token, once."""
    spec = submit(connection, 3)
    dead, alive = take(connection), take(connection)
    expire(connection, dead)
    [ticket] = ranges.reclaim(connection)
    assert (ticket.batch, ticket.first, ticket.count) == (spec.id, dead.first, dead.count)
    assert ticket.token != dead.token
    assert ranges.reclaim(connection) == []
    assert ranges.reclaim(connection, [dead.token, "nonsense"]) == []
    assert counted(connection, spec.id) == {"PENDING": 2, "RUNNING": 1}
    assert commit(connection, alive, 1).word == "done"
    assert batches.view(connection, spec.id).crashes == 1


def test_reclaim_leaves_a_waiting_range(connection: Connection) -> None:
    """A range that nobody holds cannot be taken from its holder."""
    spec = BatchSpec(next(ids), 1, 1)
    _, [(token, _, _)] = batches.submit(connection, spec)
    before = dump(connection)
    assert ranges.reclaim(connection, [token]) == []
    assert ranges.reclaim(connection) == []
    assert dump(connection) == before


def test_after_five_crashes_the_head_job_fails(connection: Connection) -> None:
    """The job that kills its process is FAILED with the reason; the others of its range go on from zero."""
    spec = submit(connection, 300, slots=1)
    begin = take(connection)
    lease = begin
    for crash in range(1, MAX_CRASHES + 1):
        [ticket] = ranges.reclaim(connection, [lease.token])
        counted(connection, spec.id)
        lease = take(connection, ticket.batch, ticket.token)
        assert lease.crashes == crash % MAX_CRASHES
    assert (lease.first, lease.count) == (begin.first + 1, begin.count - 1)
    assert counted(connection, spec.id) == {"PENDING": 298, "RUNNING": 1, "FAILED": 1}
    assert "died 5 times" in batches.failures(connection, spec.id)[begin.first]
    [record] = read(connection, spec.id, begin.first, 1, record_dtype(OUTPUTS))
    assert (record["state"], record["attempt"]) == (JobState.FAILED, MAX_CRASHES)


def test_crash_of_the_only_job_ends_the_batch(connection: Connection) -> None:
    """A batch whose last job is given up is ended, and FAILED."""
    spec = submit(connection, 1)
    for _ in range(MAX_CRASHES):
        ranges.reclaim(connection, [take(connection).token])
    assert claim(connection) is None
    view = batches.view(connection, spec.id)
    assert (view.state, view.crashes) == ("FAILED", MAX_CRASHES)
    assert view.ended


def test_progress_excuses_crashes(connection: Connection) -> None:
    """Crashes count against the job at the head: once that is done, the count starts anew."""
    submit(connection, 300, slots=1)
    lease = take(connection)
    for _ in range(MAX_CRASHES - 1):
        [ticket] = ranges.reclaim(connection, [lease.token])
        lease = take(connection, ticket.batch, ticket.token)
    assert lease.crashes == MAX_CRASHES - 1
    lease = after(lease, commit(connection, lease, 1))
    [ticket] = ranges.reclaim(connection, [lease.token])
    assert take(connection, ticket.batch, ticket.token).crashes == 1


def test_giving_back_in_good_order_is_no_crash(connection: Connection) -> None:
    """A range that a stopping worker hands over has not crashed."""
    spec = submit(connection, 1)
    for _ in range(2 * MAX_CRASHES):
        ranges.reclaim(connection, [take(connection).token], crashed=False)
    assert counted(connection, spec.id) == {"PENDING": 1}
    assert take(connection).crashes == 0


# ---- cancel ---------------------------------------------------------------------------------------------------------


def test_cancel(connection: Connection) -> None:
    """What has not ended is CANCELLED, what has stays, late commits are refused, and a second time changes nothing."""
    spec, other = submit(connection, 10), submit(connection, 10)
    done, held = take(connection, spec.id), take(connection, spec.id)
    while done.batch != spec.id:
        done = take(connection, spec.id)
    commit(connection, done, 1)
    assert batches.cancel(connection, spec.id) == 9
    assert counted(connection, spec.id) == {"COMPLETED": 1, "CANCELLED": 9}
    assert batches.view(connection, spec.id).state == "CANCELLED"
    assert batches.view(connection, spec.id).ended
    if held.batch == spec.id:
        assert commit(connection, held, 1).word == "stale"
    before = dump(connection)
    assert batches.cancel(connection, spec.id) == 0
    assert dump(connection) == before
    assert sum(counted(connection, other.id).values()) == 10


def commands(connection: Connection) -> int:
    """How many commands Redis has executed, those inside scripts included."""
    info = connection.redis.info("commandstats")
    return sum(
        int(stats["calls"]) for name, stats in info.items() if name not in ("cmdstat_info", "cmdstat_config|resetstat")
    )


def test_cancel_costs_the_same_for_ten_million_jobs(connection: Connection) -> None:
    """Cancelling takes as many commands for 10,000,000 jobs as for 1,000: it counts ranges, not jobs."""
    costs = []
    for jobs in (1000, 10_000_000):
        spec = submit(connection, jobs)
        for _ in range(3):
            take(connection)
        before = commands(connection)
        assert batches.cancel(connection, spec.id) == jobs
        costs.append(commands(connection) - before)
    assert costs[0] == costs[1]


# ---- sharing --------------------------------------------------------------------------------------------------------


def test_two_batches_share_the_slots_fairly(connection: Connection) -> None:
    """A small batch that comes second is not kept waiting: of the slots' time each gets half while both have work."""
    big, small = submit(connection, 64 * 50, slots=64), None
    served: list[int] = []
    held: list[Lease] = [take(connection) for _ in range(4)]
    for step in range(200):
        if step == 20:
            small = submit(connection, 64 * 50, slots=64)
        lease = held.pop(0)
        served.append(lease.batch)
        verdict = commit(connection, lease, 1)
        held.append(after(lease, verdict) if verdict.word == "continue" else take(connection))
    assert small is not None
    window = served[40:]
    share = window.count(small.id) / len(window)
    assert 0.4 < share < 0.6, served
    assert set(served[:20]) == {big.id}
    for batch in (big, small):
        counted(connection, batch.id)


def test_long_jobs_do_not_win(connection: Connection) -> None:
    """Time is shared, not turns: a batch of jobs five times as long gets a fifth of the turns."""
    slow, quick = submit(connection, 64 * 50, slots=64), submit(connection, 64 * 50, slots=64)
    seconds = {slow.id: 0.0, quick.id: 0.0}
    lease = take(connection)
    for _ in range(300):
        used = 5.0 if lease.batch == slow.id else 1.0
        seconds[lease.batch] += used
        verdict = commit(connection, lease, 1, seconds=used)
        lease = after(lease, verdict) if verdict.word == "continue" else take(connection)
    assert seconds[slow.id] == pytest.approx(seconds[quick.id], rel=0.2)


def pieces_of(connection: Connection, verdict: Verdict) -> list[tuple[int, int]]:
    """The ranges behind the tickets that a commit hands out."""
    found = [ranges.lookup(connection, token) for token in verdict.tickets]
    return sorted((ticket.first, ticket.count) for ticket in found if ticket)


def test_commit_shares_with_idle_slots(connection: Connection) -> None:
    """With nothing waiting, the rest of a range is cut into equal parts for the holder and the idle slots."""
    spec = submit(connection, 1000, slots=1)
    leases = list(iter(lambda: claim(connection), None))
    for lease in leases[1:]:
        commit(connection, lease, lease.count)
    connection.command("SET", keys.SLOTS, 4)
    lease = leases[0]
    verdict = commit(connection, lease, 5)
    parts = [(verdict.first, verdict.count), *pieces_of(connection, verdict)]
    assert len(parts) == 4
    assert parts[0][0] == lease.first + 5
    assert all(a + c == b for (a, c), (b, _) in itertools.pairwise(parts))
    assert sum(count for _, count in parts) == lease.count - 5
    assert max(count for _, count in parts) - min(count for _, count in parts) <= 1
    counted(connection, spec.id)
    drain_with(connection, after(lease, verdict))
    assert counted(connection, spec.id) == {"COMPLETED": 1000}


def drain_with(connection: Connection, lease: Lease) -> None:
    """Complete this lease and all that waits."""
    verdict = commit(connection, lease, lease.count)
    assert verdict.word == "done"
    drain(connection, lease.batch)


def test_share_takes_the_end_of_a_long_jobs_range(connection: Connection) -> None:
    """Slots that idle beside a long job get the end of its range; its holder may commit only what is left to it."""
    spec = submit(connection, 100, slots=1)
    leases = list(iter(lambda: claim(connection), None))
    for lease in leases[1:]:
        commit(connection, lease, lease.count)
    lease = leases[0]
    assert ranges.share(connection, slice_seconds=0.0) == []
    connection.command("SET", keys.SLOTS, 2)
    assert ranges.share(connection, slice_seconds=1000.0) == []
    wait_for(lambda: ranges.share(connection, slice_seconds=0.0), 5, "the sharing of a range")
    counted(connection, spec.id)
    found = ranges.lookup(connection, lease.token)
    assert found is not None
    assert 0 < found.count < lease.count
    before = dump(connection)
    verdict = commit(connection, lease, lease.count)
    assert (verdict.word, verdict.first, verdict.count) == ("shrunk", lease.first, found.count)
    assert dump(connection) == before
    drain_with(connection, Lease(lease.token, lease.batch, lease.first, found.count, 0))
    assert counted(connection, spec.id) == {"COMPLETED": 100}


def test_jobs_per_task(connection: Connection) -> None:
    """With JOBS_PER_TASK no claim gives more, and nothing is lost over it."""
    spec = submit(connection, 500, slots=1)
    sizes = []
    while (lease := claim(connection, most=3)) is not None:
        sizes.append(lease.count)
        commit(connection, lease, lease.count)
        counted(connection, spec.id)
    assert max(sizes) == 3
    assert sum(sizes) == 500
    assert batches.view(connection, spec.id).ended


# ---- workers and the courier ----------------------------------------------------------------------------------------


def test_heartbeat_counts_slots_and_drops_the_silent(connection: Connection) -> None:
    """Slots are those of the workers that beat; who is silent, or signs off, is gone."""
    one, other = WorkerInfo("a", 2, 1, 11), WorkerInfo("b", 3, 0, 12)
    assert workers.heartbeat(connection, one) == 1
    assert workers.heartbeat(connection, other) == 2
    assert workers.alive(connection) == [one, other]
    assert connection.command("GET", keys.SLOTS) == b"5"
    connection.command("ZADD", keys.WORKERS, "XX", 1, "a")
    assert workers.alive(connection) == [other]
    assert workers.heartbeat(connection, other) == 1
    assert connection.command("GET", keys.SLOTS) == b"3"
    workers.sign_off(connection, "b")
    assert (workers.alive(connection), connection.command("GET", keys.SLOTS)) == ([], b"0")


def test_owed_counts_ranges_and_messages(connection: Connection) -> None:
    """Ranges that wait, and messages in the queue, each counted over all batches."""
    submit(connection, 5)
    submit(connection, 7)
    connection.command("LPUSH", queue.QUEUE, "a", "b")
    before = dump(connection)
    assert ranges.owed(connection, queue.QUEUE) == (12, 2)
    assert dump(connection) == before
    take(connection)
    assert ranges.owed(connection, queue.QUEUE) == (11, 2)


def test_one_housekeeper_at_a_time(connection: Connection) -> None:
    """Who has the lock keeps it while it asks; another gets it when it has run out."""
    assert workers.become_housekeeper(connection, "a", seconds=60)
    assert not workers.become_housekeeper(connection, "b", seconds=60)
    assert workers.become_housekeeper(connection, "a", seconds=60)
    connection.command("DEL", keys.HOUSEKEEPER)
    assert workers.become_housekeeper(connection, "b", seconds=60)


def test_slot_numbers(connection: Connection) -> None:
    """Each slot has a number of its own for ever."""
    assert [workers.slot_number(connection, name) for name in ("a/0", "a/1", "a/0")] == [1, 2, 1]
    assert workers.slot_names(connection) == {1: "a/0", 2: "a/1"}


# ---- errors ---------------------------------------------------------------------------------------------------------

ACTIONS: dict[str, Callable[[Connection], object]] = {
    "view": lambda c: batches.view(c, 1),
    "submit": lambda c: batches.submit(c, BatchSpec(1, 1, 1)),
    "claim": claim,
    "renew": lambda c: ranges.renew(c, ["t"], lease_seconds=1),
    "reclaim": ranges.reclaim,
    "cancel": lambda c: batches.cancel(c, 1),
    "alive": workers.alive,
    "beat": lambda c: workers.heartbeat(c, WorkerInfo("a", 1, 0, 1)),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("url", ["unix:///tmp/there-is-no-such.sock", "redis://127.0.0.1:1"])
def test_dead_socket_is_broker_unavailable(action: str, url: str) -> None:
    """Whatever is asked of a Redis that is not there fails as BrokerUnavailable, which a retry can help."""
    dead = Connection(url, timeout_seconds=0.5, retries=0)
    with pytest.raises(BrokerUnavailable) as caught:
        ACTIONS[action](dead)
    assert caught.value.retryable
    dead.close()


def test_errors_of_redis_itself_are_broker_unavailable(connection: Connection) -> None:
    """A wrong type, or a refusal for lack of memory, is translated, too; the refused submit leaves nothing."""
    with pytest.raises(BrokerUnavailable, match="error"):
        connection.command("NONSENSE")
    before = dump(connection)
    connection.command("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerUnavailable, match="memory"):
            submit(connection, 5)
    finally:
        connection.command("CONFIG", "SET", "maxmemory", 0)
    assert dump(connection) == before


def test_scripts_are_loaded_again_after_a_flush(connection: Connection) -> None:
    """A Redis that has forgotten the scripts, as after a restart, is told them again."""
    connection.command("SCRIPT", "FLUSH")
    spec = submit(connection, 1)
    assert commit(connection, take(connection), 1).ended
    assert counted(connection, spec.id) == {"COMPLETED": 1}
