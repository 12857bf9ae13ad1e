"""Stop rules on real workers: a batch ends by itself once its estimate is good enough, and keeps what it has."""

from pathlib import Path

import numpy as np
import pytest

from common.audit import audit, verify
from common.batch import JobState, Reason
from common.errors import InvalidInput
from common.estimates import overall
from common.explain import explain_batch, explain_job
from common.ledger import Connection, batches, control, table
from common.ledger.batches import BatchView
from common.ledger.table import record_dtype
from common.options import read_options
from common.submission import Submitter
from tests.conftest import StartWorker
from tests.integration.ledger_support import submit, take
from tests.support import OUTPUTS, counted, files, wait_for

MANY = 200_000
# So that what a slot does between two looks of the housekeeper is little beside the whole.
JOB_SECONDS = 0.001


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
