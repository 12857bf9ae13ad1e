"""Stop rules on real workers: a batch ends by itself once its estimate is good enough, and keeps what it has."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import queue
from common.audit import audit, verify
from common.batch import BatchSpec, JobState, Reason
from common.errors import InvalidInput
from common.estimates import by_point, overall
from common.explain import explain_batch, explain_job
from common.ledger import Connection, batches, control, ranges, table
from common.ledger.batches import BatchView
from common.ledger.ranges import Lease, Verdict
from common.ledger.table import record_dtype
from common.options import read_options
from common.stopping import StopRule
from common.submission import Submitter
from services.worker import stopping
from services.worker.stopping import StopRules
from tests.conftest import StartWorker
from tests.integration.ledger_support import submit, take
from tests.support import OUTPUTS, counted, files, slice_of, wait_for

MANY = 200_000
# So that what a slot does between two looks of the housekeeper is little beside the whole.
JOB_SECONDS = 0.001


def commit_values(ledger: Connection, lease: Lease, values: list[float]) -> Verdict:
    """Jobs from the lease's first on complete with these sums, half a second or a second each."""
    return ranges.commit(ledger, lease, slice_of(lease.first, values), lease_seconds=60, slice_seconds=1)


def ended(connection: Connection, submitter: Submitter, rule: str, **options: object) -> BatchView:
    """Submit with this rule and wait for the results files."""
    given = read_options({"until": rule, **options})
    batch = submitter.submit(MANY, 42, job_seconds=JOB_SECONDS, options=given).id
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    return batches.view(connection, batch)


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_it_stops_by_itself(
    connection: Connection, submitter: Submitter, root: Path, worker: StartWorker, mode: str
) -> None:
    """ABORTED with reason StopRule; what had completed is kept, and as good as was asked."""
    worker(slots=2)
    view = ended(connection, submitter, "ci_halfwidth(mean) < 0.8", output_mode=mode)
    completed = view.counters[JobState.COMPLETED]
    # The deviation of a mean of ten is 9.13, so it takes some 500; the housekeeper looks twice a second.
    assert 300 < completed < MANY / 2
    assert (view.state, view.counters[JobState.ABORTED]) == ("ABORTED", MANY - completed)
    found = overall(connection, view.spec)["mean"]
    assert found["count"] == completed
    assert (found["ci_high"] - found["ci_low"]) / 2 < 0.8
    records = table.page(connection, view.spec.id, 1, MANY, record_dtype(OUTPUTS))
    aborted = records["state"] == JobState.ABORTED
    assert set(records["reason"][aborted]) == {Reason.StopRule}
    if mode == "files":
        good = np.flatnonzero(records["state"] == JobState.COMPLETED) + 1
        assert set(files(root / str(view.spec.id))) == {f"job_{index}.csv" for index in good}
    said = explain_batch(connection, view.spec.id)
    assert (said.state, said.reason) == ("ABORTED", "StopRule")
    assert "stop rule was met" in said.advice
    assert explain_job(connection, view.spec.id, int(np.flatnonzero(aborted)[0]) + 1).reason == "StopRule"
    assert audit(connection, root, view.spec.id) == []
    assert verify(root, view.spec, sample=50) == []


@pytest.mark.parametrize("rule", ["count(sum) >= 700", "standard_error(mean) < 1000 and n >= 700"])
def test_not_before_the_least_count(
    connection: Connection, submitter: Submitter, worker: StartWorker, rule: str
) -> None:
    """However narrow the interval is: few values say little about their own spread."""
    worker()
    view = ended(connection, submitter, rule)
    assert 700 <= view.counters[JobState.COMPLETED] < MANY
    assert view.state == "ABORTED"


def test_a_rule_that_is_never_met_changes_nothing(
    connection: Connection, submitter: Submitter, worker: StartWorker
) -> None:
    """The batch runs to its end."""
    worker()
    options = read_options({"until": "ci_halfwidth(mean) < 0.000001"})
    batch = submitter.submit(300, 42, options=options).id
    wait_for(lambda: batches.view(connection, batch).finished, 30, "the end", lambda: counted(connection, batch))
    assert counted(connection, batch) == {"COMPLETED": 300}


@pytest.mark.parametrize("rule", ["mean < 1", "ci_halfwidth(price) < 1"])
def test_a_wrong_rule_is_refused(connection: Connection, submitter: Submitter, rule: str) -> None:
    """Also one about an output that the simulation does not have."""
    with pytest.raises(InvalidInput) as caught:
        submitter.submit(5, options=read_options({"until": rule}))
    assert caught.value.field == "until"
    assert batches.all_ids(connection) == []


@pytest.fixture
def stop_rules(ledger: Connection, redis_url: str) -> Iterator[StopRules]:
    """Applies the rules when it is told to."""
    app = queue.make_app(redis_url)
    yield StopRules(ledger, app, slice_seconds=1.0, clock=lambda: 0.0)
    app.close()


def of_points(ledger: Connection, points: int, replications: int, until: str) -> BatchSpec:
    """A sweep in one range."""
    jobs = points * replications
    sweep = {"mode": "points", "points": [{}] * points, "replications": replications}
    return submit(ledger, jobs, ranges=[(1, jobs)], sweep=sweep, until=until)


def states(ledger: Connection, spec: BatchSpec) -> list[dict[str, int]]:
    """Of each point how many jobs are in which state."""
    records = table.page(ledger, spec.id, 1, spec.jobs, record_dtype(spec.outputs))
    split = records["state"].reshape(-1, spec.sweep["replications"])
    return [{JobState(int(state)).name: int((row == state).sum()) for state in np.unique(row)} for row in split]


def test_each_point_has_its_own(ledger: Connection, stop_rules: StopRules) -> None:
    """The one that is good enough ends; what waits, also its neighbours, goes on under leases of its own."""
    spec = of_points(ledger, 3, 1000, "ci_halfwidth(sum) < 1 and n >= 50")
    lease = take(ledger, spec.id)
    # The values of slice_of are told apart by one: half-width 0 for the constant ones.
    commit_values(ledger, lease, [5.0] * 49)
    stop_rules.apply()
    assert states(ledger, spec) == [{"PENDING": 951, "COMPLETED": 49}, {"PENDING": 1000}, {"PENDING": 1000}]
    lease = replace(lease, first=50, count=2951)
    commit_values(ledger, lease, [5.0])
    stop_rules.apply()
    assert states(ledger, spec) == [{"COMPLETED": 50, "ABORTED": 950}, {"PENDING": 1000}, {"PENDING": 1000}]
    # Its holder has lost it, and the rest waits.
    assert commit_values(ledger, replace(lease, first=51, count=2950), [5.0]).word == "stale"
    lease = take(ledger, spec.id)
    assert (lease.first, lease.count) == (1001, 2000)
    commit_values(ledger, lease, [0.0, 1000.0] * 50)
    stop_rules.apply()
    assert states(ledger, spec)[1:] == [{"PENDING": 900, "COMPLETED": 100}, {"PENDING": 1000}]
    assert not batches.view(ledger, spec.id).ended
    assert control.abort(ledger, spec.id, Reason.StopRule)[0] == 1900


def test_a_rule_that_cannot_be_read_holds_up_no_other(ledger: Connection, stop_rules: StopRules) -> None:
    """An older version may have accepted it."""
    for rule in ("no rule", "count(sum) >= 1"):
        spec = submit(ledger, 100, ranges=[(1, 100)], until=rule)
        commit_values(ledger, take(ledger, spec.id), [5.0])
    stop_rules.apply()
    assert counted(ledger, spec.id) == {"COMPLETED": 1, "ABORTED": 99}


def test_a_point_that_is_nearly_done_is_left_to_end(ledger: Connection, stop_rules: StopRules) -> None:
    """Of jobs of half a second one is left: that is less than what stopping the slot might cost."""
    spec = of_points(ledger, 2, 100, "ci_halfwidth(sum) < 1 and n >= 50")
    lease = take(ledger, spec.id)
    commit_values(ledger, lease, [5.0] * 99)
    stop_rules.apply()
    assert states(ledger, spec)[0] == {"PENDING": 1, "COMPLETED": 99}
    assert control.abort(ledger, spec.id, Reason.StopRule)[0] == 101


def test_what_files_cost_is_time_too(ledger: Connection, stop_rules: StopRules) -> None:
    """Jobs of a millisecond, of which two slots end ten a second each: 900 more take longer than a slice."""
    spec = of_points(ledger, 2, 1000, "ci_halfwidth(sum) < 1 and n >= 50")
    commit_values(ledger, take(ledger, spec.id), [5.0] * 100)
    records = table.read(ledger, spec.id, 1, 100, record_dtype(spec.outputs)).copy()
    records["elapsed"], records["started"], records["slot"] = 0.001, 0.1 * (np.arange(100) // 2), np.arange(100) % 2
    table.write(ledger, spec.id, 1, records.tobytes(), records.dtype.itemsize)
    stop_rules.apply()
    assert states(ledger, spec)[0] == {"COMPLETED": 100, "ABORTED": 900}


def test_a_point_whose_range_waits_is_looked_at(ledger: Connection, stop_rules: StopRules) -> None:
    """Nobody holds it, as after a rebuild: what there is decides."""
    spec = of_points(ledger, 2, 1000, "ci_halfwidth(sum) < 1 and n >= 50")
    lease = take(ledger, spec.id)
    commit_values(ledger, lease, [5.0] * 60)
    ranges.reclaim(ledger, [lease.token], crashed=False)
    stop_rules.apply()
    assert states(ledger, spec)[0] == {"COMPLETED": 60, "ABORTED": 940}
    assert control.abort(ledger, spec.id, Reason.StopRule)[0] == 1000


def test_what_was_read_back_from_files_has_no_time(ledger: Connection, stop_rules: StopRules) -> None:
    """Of the jobs of a rebuilt batch none knows how long it took: their point is not taken for nearly over."""
    spec = of_points(ledger, 2, 1000, "ci_halfwidth(sum) < 1 and n >= 50")
    lease = take(ledger, spec.id)
    commit_values(ledger, lease, [5.0] * 60)
    records = table.read(ledger, spec.id, 1, 60, record_dtype(spec.outputs)).copy()
    records["elapsed"] = 0
    table.write(ledger, spec.id, 1, records.tobytes(), records.dtype.itemsize)
    stop_rules.apply()
    assert states(ledger, spec)[0] == {"COMPLETED": 60, "ABORTED": 940}
    assert control.abort(ledger, spec.id, Reason.StopRule)[0] == 1000


def test_a_point_whose_first_job_runs_again_is_looked_at(ledger: Connection, stop_rules: StopRules) -> None:
    """Its range stands at the point's border, and yet nearly all of it is done."""
    spec = of_points(ledger, 2, 1000, "ci_halfwidth(sum) < 1 and n >= 50")
    lease = take(ledger, spec.id)
    verdict = ranges.commit(
        ledger, lease, slice_of(1, [5.0] * 60, failed=[1]), lease_seconds=60, slice_seconds=1, give_back=True
    )
    assert verdict.word == "released"
    assert control.requeue(ledger, spec.id, [(1, 1, JobState.FAILED, 1)]) is not None
    control.cancel(ledger, spec.id, 61, 900)
    control.cancel(ledger, spec.id, 1001, 2000)
    stop_rules.apply()
    assert states(ledger, spec)[0] == {"COMPLETED": 59, "CANCELLED": 840, "ABORTED": 101}


def test_many_points_take_turns(ledger: Connection, stop_rules: StopRules, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look reads a bounded number of records; each point's turn comes."""
    monkeypatch.setattr(stopping, "MOST_JOBS_LOOKED_AT", 1)
    sweep = {"mode": "points", "points": [{}] * 3, "replications": 1000}
    cuts = [(1 + 1000 * point, 1000) for point in range(3)]
    spec = submit(ledger, 3000, ranges=cuts, sweep=sweep, until="ci_halfwidth(sum) < 1 and n >= 50")
    for _ in cuts:
        commit_values(ledger, take(ledger, spec.id), [5.0] * 60)
    for ended in (1, 2, 3):
        stop_rules.apply()
        assert sum("ABORTED" in point for point in states(ledger, spec)) == ended


@pytest.mark.parametrize(("look", "at_once"), [(0.005, 3), (0.3, 1)])
def test_many_sweeps_take_turns(
    ledger: Connection, redis_url: str, monkeypatch: pytest.MonkeyPatch, look: float, at_once: int
) -> None:
    """Each has its own, none is forgotten; together they take a bounded part of the time, and of a round."""
    now, looks, most = 0.0, Counter[int](), 0

    def look_at_points(_: StopRules, spec: BatchSpec, rule: StopRule) -> None:
        nonlocal now
        now += look
        looks[spec.id] += 1

    monkeypatch.setattr(StopRules, "_look_at_points", look_at_points)
    ids = [of_points(ledger, 2, 1000, "ci_halfwidth(sum) < 1").id for _ in range(3)]
    app = queue.make_app(redis_url)
    rules = StopRules(ledger, app, slice_seconds=1.0, clock=lambda: now)
    for _ in range(400):
        before = looks.total()
        rules.apply()
        most = max(most, looks.total() - before)
        now += 0.5
    app.close()
    assert most == at_once
    assert max(looks[batch] for batch in ids) - min(looks[batch] for batch in ids) <= 1
    assert looks.total() * look * stopping.REST < 1.1 * now


def test_a_sweep_stops_point_by_point(
    connection: Connection, submitter: Submitter, root: Path, worker: StartWorker
) -> None:
    """On real workers: the points end after as many jobs as each needs; nothing is lost between them."""
    worker(slots=2)
    sweep = {"axes": {"sigma": [0.05, 0.4]}, "replications": 20_000}
    options = {"simulation": "european_option", "parameters": {"paths": 100}, "sweep": sweep}
    given = read_options({**options, "until": "ci_halfwidth(price) < 0.4"})
    batch = submitter.submit(None, 42, job_seconds=JOB_SECONDS, options=given).id
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    spec = batches.view(connection, batch).spec
    narrow, wide = by_point(connection, spec)
    for point in (narrow, wide):
        found = point["outputs"]["price"]
        assert (found["ci_high"] - found["ci_low"]) / 2 < 0.4
        assert 100 <= found["count"] < 20_000
    assert states(connection, spec)[0]["ABORTED"] + narrow["outputs"]["price"]["count"] == 20_000
    assert explain_batch(connection, batch).reason == "StopRule"
    assert audit(connection, root, batch) == []
    assert verify(root, spec, sample=50) == []


@pytest.fixture
def rules(ledger: Connection) -> dict[int, str]:
    """Three batches, of which the first has a rule, the second none, and the third had one and has ended."""
    first, _, third = submit(ledger, 5, until="count(sum) >= 2"), submit(ledger, 5), submit(ledger, 5, until="x")
    control.cancel(ledger, third.id)
    return {first.id: "count(sum) >= 2"}


def test_abort_in_the_ledger(ledger: Connection, rules: dict[int, str]) -> None:
    """Only open batches with a rule are looked at; what was leased ends too; twice is once."""
    assert batches.rules(ledger) == rules
    [batch] = rules
    take(ledger, batch)
    assert control.abort(ledger, batch, Reason.StopRule)[0] == 5
    assert control.abort(ledger, batch, Reason.StopRule) == (0, [])
    assert counted(ledger, batch) == {"ABORTED": 5}
    assert control.abort(ledger, 99_999, Reason.StopRule) == (0, [])
    assert batches.rules(ledger) == {}
