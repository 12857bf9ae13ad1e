"""Missing results are run again in steps, between which the batch runs; statistics and records agree in the end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from common import requeue
from common.audit import audit
from common.batch import BatchSpec
from common.control import Controller
from common.errors import BrokerUnavailable, Conflict
from common.ledger import Connection, batches, control
from common.ledger.control import Run
from common.ledger.ranges import Ticket
from common.statistics import Moments
from common.submission import Submitter
from services.worker.finish import finish as write_results
from tests.integration.recovery_support import SEED, assert_whole, run_jobs
from tests.support import counted

MOST_RUNS = 3
MISSING = range(1, 21, 2)
_requeue = control.requeue


@pytest.fixture
def spec(submitter: Submitter, ledger: Connection, root: Path, monkeypatch: pytest.MonkeyPatch) -> BatchSpec:
    """A finished batch of twenty jobs of which every other has lost its CSV: four steps."""
    monkeypatch.setattr(requeue, "MOST_RUNS", MOST_RUNS)
    spec = submitter.submit(20, SEED)
    run_jobs(ledger, root, spec.id)
    assert write_results(ledger, root, spec.id, "w")
    for index in MISSING:
        (root / str(spec.id) / f"job_{index}.csv").unlink()
    return spec


def count(connection: Connection, spec: BatchSpec) -> int:
    """How many values the statistics have."""
    found = batches.statistics(connection, spec.id, spec.outputs)
    return found[spec.outputs[0]].n


def test_slots_run_them_between_two_steps(
    spec: BatchSpec, controller: Controller, ledger: Connection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they commit is in the statistics once; no step moves more than it may."""
    sizes, ran = [], []

    def step(
        connection: Connection, batch: int, runs: Sequence[Run], kept: Mapping[str, Moments] | None
    ) -> list[Ticket] | None:
        if sizes:
            ran.extend(run_jobs(connection, root, batch, 1))
        sizes.append(len(runs))
        return _requeue(connection, batch, runs, kept)

    monkeypatch.setattr(control, "requeue", step)
    assert controller.requeue(spec.id, (), missing=True) == len(MISSING)
    assert sizes == [3, 3, 3, 1]
    assert counted(ledger, spec.id) == {"PENDING": 7, "COMPLETED": 13}
    assert count(ledger, spec) == 13
    assert sorted(ran + run_jobs(ledger, root, spec.id)) == [*MISSING]
    assert_whole(ledger, root, spec)


def test_one_that_is_cut_short(
    spec: BatchSpec, controller: Controller, ledger: Connection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was moved runs; the statistics are those of all records when it has ended, and the rest can be asked for."""

    def step(
        connection: Connection, batch: int, runs: Sequence[Run], kept: Mapping[str, Moments] | None
    ) -> list[Ticket] | None:
        if kept is None:
            raise BrokerUnavailable("away")
        return _requeue(connection, batch, runs, kept)

    with monkeypatch.context() as patch:
        patch.setattr(control, "requeue", step)
        with pytest.raises(BrokerUnavailable):
            controller.requeue(spec.id, (), missing=True)
    assert run_jobs(ledger, root, spec.id) == [*MISSING[:MOST_RUNS]]
    assert write_results(ledger, root, spec.id, "w")
    assert count(ledger, spec) == spec.jobs
    assert [line for line in audit(ledger, root, spec.id) if "statistics" in line] == []
    assert controller.requeue(spec.id, (), missing=True) == len(MISSING) - MOST_RUNS
    run_jobs(ledger, root, spec.id)
    assert_whole(ledger, root, spec)


def test_a_batch_that_ends_between_two_steps(
    spec: BatchSpec, controller: Controller, ledger: Connection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is told to try again; nothing is lost, and nothing counted twice."""

    def step(
        connection: Connection, batch: int, runs: Sequence[Run], kept: Mapping[str, Moments] | None
    ) -> list[Ticket] | None:
        tickets = _requeue(connection, batch, runs, kept)
        run_jobs(connection, root, batch)
        return tickets

    with monkeypatch.context() as patch:
        patch.setattr(control, "requeue", step)
        with pytest.raises(Conflict):
            controller.requeue(spec.id, (), missing=True)
    assert write_results(ledger, root, spec.id, "w")
    assert controller.requeue(spec.id, (), missing=True) == len(MISSING) - MOST_RUNS
    run_jobs(ledger, root, spec.id)
    assert_whole(ledger, root, spec)
