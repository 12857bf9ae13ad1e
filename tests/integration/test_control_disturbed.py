"""What people do to a batch while the disk is full, Redis is away, or a batch is about to end."""

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import outputs, reopening
from common.audit import audit
from common.batch import BatchSpec, JobState
from common.control import Controller
from common.errors import BrokerUnavailable, Conflict
from common.ledger import Connection, batches, control
from common.ledger.control import Run
from common.requeue import MOST_JOBS, Plan
from common.submission import Submitter
from services.worker.finish import finish as write_results
from tests.integration.ledger_support import finished, states
from tests.integration.recovery_support import assert_whole, run_jobs
from tests.integration.test_control import failed, forget, noted, submit
from tests.support import counted

SEED = 42


def full(*_: object) -> None:
    """A disk without room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("state", ["", "PENDING"])
@pytest.mark.parametrize("what", ["notes", "lock"])
def test_a_cancel_on_a_full_disk_is_a_cancel(
    submitter: Submitter,
    controller: Controller,
    ledger: Connection,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    state: str,
) -> None:
    """Just then one must be able to: it is done, and the warning says what it does not outlive."""
    spec, said = submit(submitter, 10), []
    if what == "notes":
        monkeypatch.setattr(outputs, "write_synced", full)
    else:
        monkeypatch.setattr(os, "open", full)
    assert controller.cancel(spec.id, [(1, 6)], state=state, warn=said.append) == 6
    assert controller.cancel(spec.id, [(1, 6)], state=state, warn=said.append) == 0
    monkeypatch.undo()
    assert counted(ledger, spec.id) == {"PENDING": 4, "CANCELLED": 6}
    assert len(said) == 1, "nothing was cancelled by the second one"
    assert "No space left on device" in said[0]
    # With room again the next one notes both.
    assert controller.cancel(spec.id, [(9, 9)], warn=said.append) == 1
    assert noted(root, spec)["closed"] == [[1, 6], [9, 1]]
    assert len(said) == 1


def test_a_cancel_that_is_not_noted_is_logged(
    submitter: Submitter, controller: Controller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the caller has no use for the warning."""
    spec = submit(submitter, 1)
    monkeypatch.setattr(outputs, "write_synced", full)
    assert controller.cancel(spec.id) == 1
    assert "could not be noted" in capsys.readouterr().out


def whole(root: Path, spec: BatchSpec) -> dict[str, bytes]:
    """All files of the batch's directory but its lock, by name."""
    place = root / str(spec.id)
    return {
        path.name: path.read_bytes() if path.is_file() else b"" for path in place.iterdir() if path.suffix != ".lock"
    }


def away(*_: object) -> None:
    """Redis does not answer."""
    raise BrokerUnavailable("Redis does not answer")


def test_a_requeue_that_redis_did_not_hear_leaves_the_files(
    submitter: Submitter, controller: Controller, ledger: Connection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers the next question: summary and notes are as they were, and nobody can write there."""
    spec = submit(submitter, 10)
    controller.cancel(spec.id, [(4, 6)])
    failed(ledger, root, spec, {1})
    before = whole(root, spec)
    with monkeypatch.context() as patch:
        patch.setattr(control, "requeue", away)
        with pytest.raises(BrokerUnavailable):
            controller.requeue(spec.id, [JobState.FAILED, JobState.CANCELLED])
    assert whole(root, spec) == before
    assert controller.requeue(spec.id, [JobState.FAILED, JobState.CANCELLED]) == 4
    run_jobs(ledger, root, spec.id)
    assert_whole(ledger, root, spec)
    assert not [name for name in whole(root, spec) if name.startswith(".")]


def test_a_requeue_while_redis_is_away_is_put_right_by_the_next_act(
    submitter: Submitter, controller: Controller, ledger: Connection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was heard cannot be known for now: the summary stays aside, and comes back when it was not."""
    spec = submit(submitter, 10)
    controller.cancel(spec.id, [(4, 6)])
    failed(ledger, root, spec, {1})
    before = whole(root, spec)
    with monkeypatch.context() as patch:
        patch.setattr(control, "requeue", away)
        patch.setattr(reopening.batches, "view", answers(2, batches.view))
        with pytest.raises(BrokerUnavailable):
            controller.requeue(spec.id, [JobState.CANCELLED])
    assert outputs.SUMMARY_NAME not in whole(root, spec)
    assert controller.cancel(spec.id) == 0
    assert whole(root, spec) == before


def answers(times: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """A Redis that answers so often, and is away then."""
    left = itertools.count(times, -1)
    return lambda *given: real(*given) if next(left) > 0 else away()


@pytest.mark.parametrize("hears", [True, False])
def test_a_requeue_whose_answer_was_lost_holds(
    submitter: Submitter,
    controller: Controller,
    ledger: Connection,
    redis_url: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    hears: bool,
) -> None:
    """The ledger has moved: the old summary does not come back, neither at once nor after the batch's second end."""
    spec = submit(submitter, 10)
    failed(ledger, root, spec, {1, 2})
    real = control.requeue

    def heard(*given: Any) -> None:
        real(*given)
        away()

    with monkeypatch.context() as patch:
        patch.setattr(control, "requeue", heard)
        patch.setattr(reopening.batches, "view", answers(99 if hears else 2, batches.view))
        with pytest.raises(BrokerUnavailable):
            controller.requeue(spec.id)
    assert outputs.SUMMARY_NAME not in whole(root, spec)
    forget(ledger, redis_url, root, spec)
    assert counted(ledger, spec.id) == {"COMPLETED": 8, "PENDING": 2}
    run_jobs(ledger, root, spec.id)
    assert controller.cancel(spec.id) == 0
    assert outputs.SUMMARY_NAME not in whole(root, spec), "what was left aside is of the first end"
    assert_whole(ledger, root, spec)
    said = (root / str(spec.id) / outputs.SUMMARY_NAME).read_bytes()
    assert controller.cancel(spec.id) == 0
    assert (root / str(spec.id) / outputs.SUMMARY_NAME).read_bytes() == said
    assert not [name for name in whole(root, spec) if name.startswith(".")]


def test_a_requeue_that_got_half_way_keeps_the_rest_cancelled(
    submitter: Submitter,
    controller: Controller,
    ledger: Connection,
    redis_url: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused at its second step: what it had reopened runs, and what it had not stays cancelled after a rebuild."""
    monkeypatch.setattr("common.requeue.MOST_RUNS", 1)
    spec = submit(submitter, 10)
    controller.cancel(spec.id, [(2, 3), (6, 7)])
    run_jobs(ledger, root, spec.id)
    assert write_results(ledger, root, spec.id, "w")
    real, left = control.requeue, itertools.count(1, -1)
    monkeypatch.setattr(control, "requeue", lambda *given: real(*given) if next(left) > 0 else None)
    with pytest.raises(Conflict):
        controller.requeue(spec.id, [JobState.CANCELLED])
    assert counted(ledger, spec.id) == {"COMPLETED": 6, "PENDING": 2, "CANCELLED": 2}
    forget(ledger, redis_url, root, spec)
    assert counted(ledger, spec.id) == {"COMPLETED": 6, "PENDING": 2, "CANCELLED": 2}
    assert states(ledger, spec.id)[5] == "CANCELLED"


def test_a_requeue_while_the_last_job_ends_changes_nothing(
    submitter: Submitter, controller: Controller, ledger: Connection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was planned while the batch ran; by the time that it moves, somebody is about to write the results files."""
    spec = submit(submitter, 4)
    controller.cancel(spec.id, [(2, 2)])
    real = Plan.runs

    def runs(plan: Plan) -> Iterator[Run]:
        yield from list(real(plan))
        run_jobs(ledger, root, spec.id)

    monkeypatch.setattr(Plan, "runs", runs)
    with pytest.raises(Conflict):
        controller.requeue(spec.id, [JobState.CANCELLED])
    assert write_results(ledger, root, spec.id, "w")
    assert counted(ledger, spec.id) == {"COMPLETED": 3, "CANCELLED": 1}
    assert audit(ledger, root, spec.id) == []


def test_very_many_jobs_are_run_again_in_steps(
    submitter: Submitter, controller: Controller, ledger: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is bounded by its jobs, too: the ledger does nothing else meanwhile."""
    spec = submit(submitter, 600_000)
    controller.cancel(spec.id)
    finished(ledger, spec.id)
    sizes: list[int] = []
    real = control.requeue

    def counting(own: Connection, batch: int, runs: list[Run], *more: Any) -> Any:
        sizes.append(sum(count for _, count, *_ in runs))
        return real(own, batch, runs, *more)

    monkeypatch.setattr(control, "requeue", counting)
    assert controller.requeue(spec.id, [JobState.CANCELLED]) == 600_000
    assert sum(sizes) == 600_000
    assert max(sizes) <= MOST_JOBS
    assert counted(ledger, spec.id) == {"PENDING": 600_000}
