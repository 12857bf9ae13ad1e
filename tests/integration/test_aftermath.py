"""What is done for a slot whose process died in the middle of a slice: no result, error or culprit is forgotten."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from common import outputs, queue
from common.batch import BatchSpec, JobState, Reason
from common.explain import explain_job
from common.ledger import Connection, batches, control, keys, ranges, table, workers
from common.ledger.ranges import Lease
from common.ledger.table import record_dtype, record_packer
from common.settings import Settings
from services.worker.aftermath import bury
from services.worker.board import Board
from tests.integration.ledger_support import ids, take
from tests.support import OUTPUTS, counted

JOBS = 10
PACK = record_packer(OUTPUTS)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """Publishes to the test's Redis."""
    made = queue.make_app(redis_url)
    yield made
    made.close()


class Dead:
    """A slot that took a batch's only range and died in it."""

    def __init__(self, ledger: Connection, app: Celery, redis_url: str, root: Path, **options: object) -> None:
        self._ledger, self._app = ledger, app
        self._settings = Settings(_env_file=None, redis_url=redis_url, output_dir=root)  # type: ignore[call-arg]
        self.spec = dataclasses.replace(BatchSpec(next(ids), JOBS, 1, crash_limit=2), **options)  # type: ignore[arg-type]
        outputs.prepare(root, self.spec)
        batches.submit(ledger, self.spec, ranges=[(1, JOBS)])
        self.lease: Lease = take(ledger, self.spec.id)
        self._board = Board.create(root.parent / f"board-{self.spec.id}", 1)
        self._board.write(0, os.getpid(), self.lease.token)
        self.recorder = self._board.recorder(0)
        self.recorder.begin(1, PACK.size, 1, 0)
        self.recorder.start(time.monotonic())

    def does(self, state: JobState = JobState.COMPLETED, reason: Reason = Reason.NONE) -> None:
        """Its next job ends so."""
        self.recorder.add(PACK.pack(state, 1, 0, 1, 0, reason, 1.0, 0.1, 0.1, 10, 1.0, 1.0), time.monotonic())

    def is_buried(self, ended_as: int = 0, ago: float = 0.0) -> None:
        """Its main process, or its successor, sees to it; it was killed at a limit, or died by itself, so long ago."""
        self._board.note_end(0, ended_as)
        with pytest.MonkeyPatch.context() as patch:
            at = time.monotonic() - ago
            patch.setattr("services.worker.board.time.monotonic", lambda: at)
            self._board.note_exit(0, -9)
        bury(self._ledger, self._app, self._settings, self._board, self._board.read(0))


@pytest.fixture
def dies(ledger: Connection, app: Celery, redis_url: str, root: Path) -> Callable[..., Dead]:
    """Makes such slots."""
    return lambda **options: Dead(ledger, app, redis_url, root, **options)


@pytest.mark.parametrize("why", ["priority", "hold"])
def test_the_culprit_is_named_though_the_range_is_not_its_slots_any_more(
    ledger: Connection, dies: Callable[..., Dead], root: Path, why: str
) -> None:
    """Another batch goes first, or it is held: the job has reached its limit all the same."""
    dead = dies(time_limit_seconds=1.0)
    for _ in range(4):
        dead.does()
    if why == "priority":
        other = BatchSpec(next(ids), 5, 1, priority=1)
        outputs.prepare(root, other)
        batches.submit(ledger, other)
    else:
        control.adjust(ledger, dead.spec.id, "held", 1)
    dead.is_buried(JobState.TIMEOUT)
    assert counted(ledger, dead.spec.id) == {"COMPLETED": 4, "TIMEOUT": 1, "PENDING": 5}
    record = table.read(ledger, dead.spec.id, 5, 1, record_dtype(OUTPUTS))[0]
    assert (record["state"], record["reason"]) == (JobState.TIMEOUT, Reason.TimeLimit)


@pytest.mark.parametrize("state", [JobState.TIMEOUT, JobState.FAILED])
def test_the_culprits_record_says_where_and_when_it_ran(
    ledger: Connection, dies: Callable[..., Dead], state: JobState
) -> None:
    """As any other: slot, begin, and how long until its process had ended."""
    dead = dies(crash_limit=1)
    dead.recorder.start(time.monotonic() - 7200)
    dead.is_buried(state if state is JobState.TIMEOUT else 0, ago=3600)
    record = table.read(ledger, dead.spec.id, 1, 1, record_dtype(OUTPUTS))[0]
    assert record["state"] == state
    assert record["started"] == pytest.approx(time.time() - 7200, abs=600)
    assert record["elapsed"] == pytest.approx(3600, abs=600)
    assert workers.slot_names(ledger)[int(record["slot"])] == "w/0"
    assert any("Attempt 1 began at" in line for line in explain_job(ledger, dead.spec.id, 1).details)


def test_the_errors_of_the_jobs_before_it_are_kept(ledger: Connection, dies: Callable[..., Dead]) -> None:
    """A job raised, and a later one killed the process: both say why."""
    dead = dies(crash_limit=1)
    dead.recorder.fail(1, "ValueError: what people need")
    dead.does(JobState.FAILED, Reason.NonZeroExitCode)
    dead.does()
    dead.is_buried()
    assert counted(ledger, dead.spec.id) == {"COMPLETED": 1, "FAILED": 2, "PENDING": 7}
    texts = batches.failures(ledger, dead.spec.id)
    assert texts[1] == "ValueError: what people need"
    assert "signal 9" in texts[3]


def test_at_a_job_that_had_been_cancelled(ledger: Connection, dies: Callable[..., Dead]) -> None:
    """Killed because it did not stop: nobody is to blame, what it had done counts, and its lease is over at once."""
    dead = dies()
    for _ in range(4):
        dead.does()
    assert control.cancel(ledger, dead.spec.id, 5, JOBS)[0] == 6
    dead.is_buried()
    assert counted(ledger, dead.spec.id) == {"COMPLETED": 4, "CANCELLED": 6}
    assert batches.view(ledger, dead.spec.id).crashes == 0
    assert ledger.command("ZCARD", keys.LEASES) == 0


def test_of_packed_results_nothing_is_there(ledger: Connection, dies: Callable[..., Dead]) -> None:
    """They were in the dead process: its jobs run again, at once, also when the one it was at is cancelled."""
    dead = dies(output_mode="packed")
    for _ in range(4):
        dead.does()
    control.cancel(ledger, dead.spec.id, 5, JOBS)
    dead.is_buried()
    assert counted(ledger, dead.spec.id) == {"PENDING": 4, "CANCELLED": 6}
    assert take(ledger, dead.spec.id).count == 4


def test_a_cancelled_jobs_place_is_free(ledger: Connection, dies: Callable[..., Dead]) -> None:
    """The whole range was cancelled, and the slot killed for it: the batch's throttle has room again."""
    dead = dies(throttle=1)
    control.cancel(ledger, dead.spec.id, 1, JOBS)
    assert ledger.command("ZCARD", keys.STOPPING) == 1
    dead.is_buried()
    assert ledger.command("ZCARD", keys.STOPPING) == 0
    assert ranges.release(ledger) == []
