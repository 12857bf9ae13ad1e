"""A slot deep in its slice, on real workers: the job that it is at is the one that is cancelled, kept, or blamed."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import queue
from common.audit import audit
from common.batch import BatchSpec, JobState, Reason
from common.control import Controller
from common.explain import explain_job
from common.ledger import Connection, batches, control, table
from common.ledger.table import record_dtype
from common.options import read_options
from common.simulations import registry
from common.submission import Submitter
from tests.conftest import LONG_LEASE_SECONDS, StartWorker
from tests.slots import slots_of
from tests.support import counted, wait_for

# Each job says when it begins and ends; which one is special is a parameter.
MINE = '''
import asyncio, os, time
from pathlib import Path
from batchsim import simulation

def say(text):
    with open(os.environ["SAID"], "a") as file:
        file.write(text + "\\n")

def number(rng):
    return int(rng.bit_generator.state["state"]["counter"][3])

@simulation(outputs={"x": float})
def sleeper(rng, *, at: int = 42, seconds: float = 3600.0):
    """One job takes long."""
    index = number(rng)
    if index == at:
        say(f"{index} begins")
        time.sleep(seconds)
        say(f"{index} ends")
    return {"x": float(index)}

@simulation(outputs={"x": float})
def stubborn(rng, *, first: float = 1.0):
    """Each takes a second, whatever it is told; the first so long, and a second from when it is told to stop."""
    index = number(rng)
    end = time.monotonic() + (first if index == 1 else 1.0)
    say(f"{index} begins")
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            end = min(end, time.monotonic() + 1)
    say(f"{index} ends")
    return {"x": float(index)}

@simulation(outputs={"x": float})
def cancels_itself(rng):
    """The third raises what is no Exception."""
    if number(rng) == 3:
        raise asyncio.CancelledError("no Exception")
    return {"x": 1.0}

@simulation(outputs={"x": float})
def bad_neighbours(rng):
    """The first raises, the second ends its process."""
    if number(rng) == 1:
        raise ValueError("what people need")
    if number(rng) == 2:
        os._exit(9)
    return {"x": 1.0}
'''


class Stage:
    """A directory of simulations, workers that have it, and batches of them."""

    def __init__(self, connection: Connection, redis_url: str, root: Path, worker: StartWorker) -> None:
        self.connection = connection
        self.root = root
        self.place = root.parent / "mine"
        self.place.mkdir()
        (self.place / "mine.py").write_text(MINE)
        self._said = root.parent / "said"
        self._said.touch()
        registry.use(self.place)
        self.app = queue.make_app(redis_url)
        self._submitter = Submitter(connection, self.app, root)
        self.controller = Controller(connection, self.app, root)
        self._worker = worker

    def worker(self, slots: int) -> list[int]:
        """Start one; returns its slots' process ids."""
        settings = {"SIMULATIONS_DIR": self.place, "SAID": self._said, "LEASE_SECONDS": LONG_LEASE_SECONDS}
        return slots_of(self._worker(slots=slots, **settings))

    def submit(self, simulation: str, jobs: int, **options: object) -> BatchSpec:
        """A batch."""
        return self._submitter.submit(jobs, 1, options=read_options({"simulation": simulation, **options}))

    def said(self) -> list[str]:
        """What the jobs have said."""
        return self._said.read_text().splitlines()

    def states(self, spec: BatchSpec) -> dict[str, list[int]]:
        """The jobs of each state."""
        found = table.page(self.connection, spec.id, 1, spec.jobs, record_dtype(spec.outputs))["state"].tolist()
        return {JobState(state).name: [i for i, s in enumerate(found, 1) if s == state] for state in set(found)}

    def ended(self, spec: BatchSpec, seconds: float = 30.0) -> dict[str, int]:
        """Wait for its end; its counters. Nothing may be wrong then."""
        view = wait_for(
            lambda: (found := batches.view(self.connection, spec.id)).finished and found,
            seconds,
            "the end",
            lambda: (counted(self.connection, spec.id), self.said()),
        )
        assert view
        assert audit(self.connection, self.root, spec.id) == []
        return counted(self.connection, spec.id)

    def is_at(self, spec: BatchSpec, job: int) -> None:
        """Wait until the ledger knows that a slot is at this job, and the job has said so too.

        To the ledger the job is the one that runs as soon as the one before it is over.
        """
        wait_for(
            lambda: batches.running_jobs(self.connection, spec.id) == {job} and f"{job} begins" in self.said(),
            60,
            f"job {job}",
            self.said,
        )


@pytest.fixture
def stage(connection: Connection, redis_url: str, root: Path, worker: StartWorker) -> Iterator[Stage]:
    """Without workers."""
    yield Stage(connection, redis_url, root, worker)
    registry.use(None)


@pytest.mark.parametrize("how", ["by its number", "as running"])
@pytest.mark.parametrize("mode", ["files", "packed"])
def test_the_job_that_hangs_is_the_one_that_is_cancelled(stage: Stage, how: str, mode: str) -> None:
    """And no other: those that the slot had done before it count, those behind it run."""
    stage.worker(1)
    spec = stage.submit("sleeper", 200, output_mode=mode)
    stage.is_at(spec, 42)
    assert explain_job(stage.connection, spec.id, 42).state == "RUNNING"
    if how == "by its number":
        assert stage.controller.cancel(spec.id, [(42, 42)]) == 1
    else:
        assert stage.controller.cancel(spec.id, state="RUNNING") == 1
    assert stage.ended(spec) == {"COMPLETED": 199, "CANCELLED": 1}
    assert stage.states(spec)["CANCELLED"] == [42]
    assert stage.said() == ["42 begins"]


def test_pending_jobs_are_cancelled_and_the_running_one_goes_on(stage: Stage) -> None:
    """What the slot has done before it is neither."""
    stage.worker(1)
    spec = stage.submit("sleeper", 200, parameters={"at": 42, "seconds": 6.0})
    stage.is_at(spec, 42)
    stage.controller.cancel(spec.id, state="PENDING")
    stage.ended(spec)
    assert stage.said() == ["42 begins", "42 ends"]
    assert {*range(1, 43)} <= {*stage.states(spec)["COMPLETED"]}


def test_a_long_job_is_not_shared_away(stage: Stage) -> None:
    """Slots that are idle get what is behind it; it begins once."""
    stage.worker(3)
    spec = stage.submit("sleeper", 200, parameters={"at": 42, "seconds": 6.0})
    assert stage.ended(spec) == {"COMPLETED": 200}
    assert stage.said() == ["42 begins", "42 ends"]
    assert len(set(table.read(stage.connection, spec.id, 1, 200, record_dtype(spec.outputs))["slot"])) > 1


def test_a_cancelled_job_keeps_its_place_until_it_has_stopped(stage: Stage) -> None:
    """With a throttle of one, the next job does not begin while a cancelled one that does not listen still runs."""
    stage.worker(2)
    spec = stage.submit("stubborn", 4, throttle=1, parameters={"first": 60.0})
    wait_for(lambda: stage.said() == ["1 begins"], 60, "the first job", stage.said)
    stage.controller.cancel(spec.id, [(1, 1)])
    assert stage.ended(spec) == {"COMPLETED": 3, "CANCELLED": 1}
    order = [line for line in stage.said() if line != "1 ends"]
    assert order == ["1 begins", *(f"{job} {word}" for job in (2, 3, 4) for word in ("begins", "ends"))]
    # It was killed, or its end came first.
    assert "1 ends" not in stage.said()[stage.said().index("2 begins") :]


def test_the_job_of_a_killed_slot_counts_as_one_crash(stage: Stage) -> None:
    """It begins again, alone, and no other job does."""
    [slot] = stage.worker(1)
    spec = stage.submit("sleeper", 200, parameters={"at": 42, "seconds": 6.0})
    stage.is_at(spec, 42)
    os.kill(slot, signal.SIGKILL)
    assert stage.ended(spec) == {"COMPLETED": 200}
    assert stage.said() == ["42 begins", "42 begins", "42 ends"]
    assert batches.view(stage.connection, spec.id).crashes == 1
    attempts = table.read(stage.connection, spec.id, 1, 200, record_dtype(spec.outputs))["attempt"]
    assert attempts[:42].tolist() == [1] * 41 + [2]


def test_a_slot_that_dies_while_its_worker_imports_a_file_is_replaced(stage: Stage) -> None:
    """The new process does not inherit the lock of the import."""
    library = stage.root.parent / "library"
    library.mkdir()
    (library / "sluggish.py").write_text(
        f"import pathlib, time\npathlib.Path({str(library / 'importing')!r}).touch()\ntime.sleep(1)\n"
    )
    [slot] = stage.worker(1)
    (stage.place / "slow.py").write_text(f"import sys\nsys.path.append({str(library)!r})\nimport sluggish\n")
    wait_for((library / "importing").exists, 60, "the import in the worker's main process")
    os.kill(slot, signal.SIGKILL)
    assert stage.ended(stage.submit("stubborn", 1)) == {"COMPLETED": 1}


def test_what_is_no_exception_is_a_failure_like_any_other(stage: Stage) -> None:
    """FAILED, with its traceback, at once; not a lost worker."""
    stage.worker(1)
    spec = stage.submit("cancels_itself", 8, retries=1, retry_delay_seconds=0.01)
    assert stage.ended(spec) == {"COMPLETED": 7, "FAILED": 1}
    said = explain_job(stage.connection, spec.id, 3)
    assert said.reason == Reason.NonZeroExitCode.name
    assert any("CancelledError: no Exception" in line for line in said.details)
    assert batches.view(stage.connection, spec.id).crashes == 0


def test_the_error_of_a_neighbour_of_a_crash_is_kept(stage: Stage) -> None:
    """The traceback of a job that raised is there, though a later one killed the process before the commit."""
    stage.worker(1)
    spec = stage.submit("bad_neighbours", 100, crash_limit=2)
    assert stage.ended(spec) == {"COMPLETED": 98, "FAILED": 2}
    assert any("ValueError: what people need" in line for line in explain_job(stage.connection, spec.id, 1).details)


def test_slots_that_wait_for_the_volume_are_left_in_peace(stage: Stage) -> None:
    """However long that takes: none is killed, and the batch goes on in the same processes."""
    pids = stage.worker(2)
    spec = stage.submit("sleeper", 50, hold=True, parameters={"at": 0})
    away = stage.root.rename(stage.root.with_name("away"))
    # In the ledger alone: the notes are on the volume, which is away.
    queue.publish(stage.app, control.adjust(stage.connection, spec.id, "held", 0))
    began = time.monotonic()
    # Longer than a slot that does not stop is left alone.
    wait_for(lambda: time.monotonic() - began > 5, 10, "five seconds")
    away.rename(stage.root)
    assert stage.ended(spec) == {"COMPLETED": 50}
    assert [pid for pid in pids if not Path(f"/proc/{pid}").exists()] == []
