"""Bad jobs on real workers: each ends as it must, with its reason named, and harms no other."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.processes import children
from common import queue
from common.audit import audit, verify
from common.batch import BatchSpec, JobState, Reason
from common.control import Controller
from common.explain import explain_batch, explain_job
from common.ledger import Connection, batches, keys, table
from common.ledger.table import record_dtype
from common.options import read_options
from common.seeds import Streams
from common.simulations.faulty import KINDS, kind
from common.simulations.random_numbers import random_numbers
from common.submission import Submitter
from tests.conftest import LONG_LEASE_SECONDS, SLICE_SECONDS, StartWorker, wait_ready
from tests.integration.test_client import cli
from tests.support import (
    OUTPUTS,
    Running,
    counted,
    differences,
    environment,
    expected_csv,
    files,
    python,
    start,
    wait_for,
)

SEED = 42
# What each kind of job ends as, and why.
ENDS = {
    "": (JobState.COMPLETED, Reason.NONE),
    "flaky": (JobState.COMPLETED, Reason.NONE),
    "raises": (JobState.FAILED, Reason.NonZeroExitCode),
    "hangs": (JobState.TIMEOUT, Reason.TimeLimit),
    "memory": (JobState.OUT_OF_MEMORY, Reason.OutOfMemory),
    "kills": (JobState.FAILED, Reason.CrashLimit),
}
# A simulation whose hanging jobs catch whatever is thrown at them.
STUBBORN = """
import runpy, time
from common.simulations import faulty
from common.simulations.declare import simulation

@simulation(outputs={"sum": int, "mean": float}, name="faulty")
def stubborn(rng, *, hangs: float = 0.0):
    result = faulty.random_numbers(rng)
    while faulty.kind(float(rng.random()), 0, hangs, 0, 0, 0) == "hangs":
        deadline = time.monotonic() + 3600
        while time.monotonic() < deadline:
            try:
                time.sleep(1)
            except BaseException:
                pass
    return result

faulty.faulty = stubborn
runpy.run_module("services.worker", run_name="__main__", alter_sys=True)
"""


def kinds(parameters: dict[str, float], jobs: int) -> dict[int, str]:
    """What each job does, from its own random stream."""
    rates, streams, found = [parameters.get(name, 0.0) for name in KINDS], Streams(SEED), {}
    for index in range(1, jobs + 1):
        rng = streams.generator(index)
        random_numbers(rng)
        found[index] = kind(float(rng.random()), *rates)
    return found


def submit(connection: Connection, redis_url: str, root: Path, jobs: int, **options: object) -> BatchSpec:
    """A batch of the faulty simulation."""
    given = read_options({"simulation": "faulty", **options})
    return Submitter(connection, queue.make_app(redis_url), root).submit(jobs, SEED, options=given)


def wait_finished(connection: Connection, spec: BatchSpec, worker: Running, timeout: float = 60) -> None:
    """Wait until the batch's results files are written."""
    wait_for(
        lambda: batches.view(connection, spec.id).finished,
        timeout,
        "the end of the batch",
        lambda: (batches.view(connection, spec.id), worker.text()[-3000:]),
    )


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_all_kinds_at_once(connection: Connection, redis_url: str, root: Path, worker: StartWorker, mode: str) -> None:
    """2,000 jobs, some of every bad kind: each ends as its kind must, and the good ones' bytes are as ever."""
    parameters = {"raises": 0.01, "hangs": 0.003, "memory": 0.003, "kills": 0.002, "flaky": 0.005}
    what = kinds(parameters, 2000)
    assert set(what.values()) == set(ENDS), "the seed gives some of every kind"
    spec = submit(
        connection, redis_url, root, 2000, parameters=parameters, time_limit_seconds=5, memory_limit_mb=64,
        retries=1, retry_delay_seconds=0.1, crash_limit=2, output_mode=mode,
    )  # fmt: skip
    wait_finished(connection, spec, worker(slots=2, LEASE_SECONDS=LONG_LEASE_SECONDS), 120)
    page = table.page(connection, spec.id, 1, 2000, record_dtype(OUTPUTS))
    found = {index: (JobState(int(r["state"])), Reason(int(r["reason"]))) for index, r in enumerate(page, 1)}
    assert {i: (what[i], found[i]) for i in what if found[i] != ENDS[what[i]]} == {}
    assert {what[i] for i in what if page["attempt"][i - 1] == 1} <= {"", "hangs", "memory"}
    assert {int(page["attempt"][i - 1]) for i in what if what[i] == "flaky"} == {2}
    assert {int(page["signal"][i - 1]) for i in what if what[i] == "kills"} == {9}
    assert counted(connection, spec.id) == Counter(ENDS[name][0].name for name in what.values())

    good = [index for index, name in what.items() if ENDS[name][0] is JobState.COMPLETED]
    if mode == "packed":
        target = root.parent / "exported"
        assert cli("export", "--batch", spec.id, target, OUTPUT_DIR=root).returncode == 0
    wanted = {f"job_{index}.csv": expected_csv(SEED, index) for index in good}
    assert differences(files(root / str(spec.id) if mode == "files" else target), wanted) == []
    assert audit(connection, root, spec.id) == []
    assert verify(root, spec, sample=200) == []
    done = cli("doctor", REDIS_URL=redis_url, OUTPUT_DIR=root)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert explain_batch(connection, spec.id).state == "FAILED"
    for name, (state, reason) in ENDS.items():
        index = next(index for index in what if what[index] == name)
        said = explain_job(connection, spec.id, index)
        assert (said.state, said.reason) == (state.name, reason.name if reason else "")


def isolate(connection: Connection, spec: BatchSpec) -> None:
    """Let a batch look as if a job had killed its process, so that its slices run in children of the slots."""
    connection.command("HINCRBY", keys.batch(spec.id), "crashes", 1)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_job_that_ignores_its_time_limit_is_killed(
    connection: Connection, redis_url: str, root: Path, home: Path, processes: list[Running], isolated: bool
) -> None:
    """It catches the interrupt and goes on; its process is killed, the job is TIMEOUT, and the others run."""
    what = kinds({"hangs": 0.08}, 40)
    bad = [index for index, name in what.items() if name]
    assert 1 <= len(bad) <= 4
    spec = submit(connection, redis_url, root, 40, parameters={"hangs": 0.08}, time_limit_seconds=1.0)
    if isolated:
        isolate(connection, spec)
    given = {"REDIS_URL": redis_url, "OUTPUT_DIR": root, "TMPDIR": home}
    env = environment(SLICE_SECONDS=SLICE_SECONDS, LEASE_SECONDS=LONG_LEASE_SECONDS, **given)
    running = start(python("-c", STUBBORN, "--slots", "1"), env, home, "stubborn")
    processes.append(running)
    wait_ready(running)
    slots = children(running.pid)
    wait_finished(connection, spec, running)
    assert (children(running.pid) == slots) is isolated, "only a child of the slot was killed"
    assert counted(connection, spec.id) == {"COMPLETED": 40 - len(bad), "TIMEOUT": len(bad)}
    page = table.page(connection, spec.id, 1, 40, record_dtype(OUTPUTS))
    assert {(int(r["reason"]), int(r["signal"])) for r in page[[i - 1 for i in bad]]} == {(Reason.TimeLimit, 9)}
    assert "was killed" in batches.failures(connection, spec.id)[bad[0]]
    assert audit(connection, root, spec.id) == []


@pytest.mark.parametrize("isolated", [False, True])
def test_a_hanging_job_can_be_cancelled(
    connection: Connection, redis_url: str, root: Path, worker: StartWorker, isolated: bool
) -> None:
    """The slot is free again and runs the next batch, though the job would never have ended."""
    spec = submit(connection, redis_url, root, 3, parameters={"hangs": 1})
    if isolated:
        isolate(connection, spec)
    running = worker(slots=1, LEASE_SECONDS=LONG_LEASE_SECONDS)
    wait_for(lambda: counted(connection, spec.id).get("RUNNING"), 60, "the first job", running.text)
    after = Submitter(connection, queue.make_app(redis_url), root).submit(5, SEED)
    controller = Controller(connection, queue.make_app(redis_url), root)
    assert controller.cancel(spec.id, [(2, 2)]) == 1
    assert counted(connection, spec.id) == {"RUNNING": 1, "PENDING": 1, "CANCELLED": 1}
    assert controller.cancel(spec.id) == 2
    assert counted(connection, spec.id) == {"CANCELLED": 3}
    wait_finished(connection, after, running)
    wait_finished(connection, spec, running)
    assert batches.view(connection, spec.id).state == "CANCELLED"
    for batch in (spec, after):
        assert audit(connection, root, batch.id) == []


def test_a_batch_whose_every_job_kills_its_process(
    connection: Connection, redis_url: str, root: Path, worker: StartWorker
) -> None:
    """It ends, FAILED, and the worker is still there for the next one."""
    running = worker(slots=2, LEASE_SECONDS=LONG_LEASE_SECONDS)
    spec = submit(connection, redis_url, root, 4, parameters={"kills": 1}, crash_limit=2)
    wait_finished(connection, spec, running)
    view = batches.view(connection, spec.id)
    assert (view.state, view.crashes) == ("FAILED", 8)
    assert counted(connection, spec.id) == {"FAILED": 4}
    assert explain_batch(connection, spec.id).reason == "CrashLimit"
    assert all("signal 9" in text for text in batches.failures(connection, spec.id).values())
    assert files(root / str(spec.id)) == {}
    assert audit(connection, root, spec.id) == []
    assert running.process.poll() is None
    after = Submitter(connection, queue.make_app(redis_url), root).submit(5, SEED)
    wait_finished(connection, after, running)
    assert counted(connection, after.id) == {"COMPLETED": 5}


def test_too_many_failures_end_the_batch(
    connection: Connection, redis_url: str, root: Path, worker: StartWorker
) -> None:
    """With max_fails the rest is ABORTED; what is run again meets the same end, since the seeds are the same."""
    running = worker(slots=2, LEASE_SECONDS=LONG_LEASE_SECONDS)
    spec = submit(connection, redis_url, root, 300, parameters={"raises": 0.5}, max_fails="5%")
    wait_finished(connection, spec, running)
    states = counted(connection, spec.id)
    assert states["FAILED"] > 15
    assert sum(states.values()) == 300
    assert (batches.view(connection, spec.id).state, explain_batch(connection, spec.id).state) == ("FAILED", "FAILED")
    assert audit(connection, root, spec.id) == []
