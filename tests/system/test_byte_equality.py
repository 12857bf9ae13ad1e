"""Every built-in simulation gives the same bytes on one, two and four workers, in both output modes, under kill -9."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import outputs, queue, results
from common.audit import audit
from common.batch import BatchSpec
from common.jobs import Jobs
from common.ledger import Connection, batches, workers
from common.options import read_options
from common.simulations import registry
from common.submission import Submitter
from tests.conftest import StartWorker
from tests.slots import kill_at_work
from tests.support import Running, counted, wait_for

SEED = 2026
# So small that a job takes some milliseconds.
SMALL: dict[str, dict[str, Any]] = {
    "random_numbers": {},
    "monte_carlo_pi": {"points": 500},
    "european_option": {"paths": 500},
    "mmc_queue": {"customers": 200, "warm_up": 50},
    "random_walk": {"walkers": 50, "steps": 30},
    "ising_2d": {"size": 8, "sweeps": 20, "burn_in": 5},
    "sir_epidemic": {"population": 200},
    "percolation": {"size": 16},
    "faulty": {"flaky": 0.0},
}
JOBS = 120
QUICK = ("random_numbers", "mmc_queue")
# What `make test` kills a worker under; `make chaos` does so under all.
KILLED = (("random_numbers", "files"), ("mmc_queue", "packed"))

Submit = Callable[..., BatchSpec]


@pytest.fixture
def submit(connection: Connection, redis_url: str, root: Path) -> Submit:
    """Submits a batch of a built-in simulation with small parameters."""
    submitter = Submitter(connection, queue.make_app(redis_url), root)

    def begin(name: str, mode: str, jobs: int = JOBS, job_seconds: float = 0.0) -> BatchSpec:
        options = read_options({"simulation": name, "parameters": SMALL[name], "output_mode": mode})
        return submitter.submit(jobs, SEED, job_seconds=job_seconds, options=options)

    return begin


def finished(connection: Connection, spec: BatchSpec) -> None:
    """Wait for the results files; every job has completed."""
    wait_for(lambda: batches.view(connection, spec.id).finished, 90, "the end", lambda: counted(connection, spec.id))
    assert counted(connection, spec.id) == {"COMPLETED": spec.jobs}


def assert_bytes(connection: Connection, root: Path, spec: BatchSpec) -> None:
    """Each job's CSV and its row in results.csv are what the job gives in this process, alone."""
    place, alone = outputs.directory(root, spec), Jobs(spec)
    store = results.open_store(place, spec)
    with (place / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == spec.jobs
    for index, row in enumerate(rows, 1):
        data, values = alone.result(index)
        assert store.read(index) == data, f"{spec.simulation} {index}"
        assert [repr(float(row[name])) for name in spec.outputs] == [repr(value) for value in values]
    assert audit(connection, root, spec.id) == []


def start(connection: Connection, worker: StartWorker, count: int, **settings: object) -> list[Running]:
    """So many workers of one slot, which are known to be alive."""
    started = [worker(wait=False, **settings) for _ in range(count)]
    wait_for(lambda: len(workers.alive(connection)) == count, 60, "the workers", lambda: [w.text() for w in started])
    return started


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("mode", ["files", "packed"])
def test_any_number_of_workers(
    submit: Submit, connection: Connection, root: Path, worker: StartWorker, mode: str, count: int
) -> None:
    """Every built-in, one after the other on the same workers."""
    start(connection, worker, count)
    specs = [submit(name, mode, JOBS if name in QUICK else JOBS // 4) for name in registry.BUILT_IN]
    for spec in specs:
        finished(connection, spec)
        assert_bytes(connection, root, spec)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, marks=() if (name, mode) in KILLED else pytest.mark.slow)
        for name in registry.BUILT_IN
        for mode in ("files", "packed")
    ],
)
def test_kill_9_in_between(
    submit: Submit, connection: Connection, root: Path, worker: StartWorker, name: str, mode: str
) -> None:
    """A worker that is killed with its range half done changes no byte, and no job is counted twice."""
    victim, _ = start(connection, worker, 2)
    spec = submit(name, mode, 400, job_seconds=0.02)
    wait_for(lambda: batches.view(connection, spec.id).done >= 20, 60, "progress", victim.text)
    kill_at_work(connection, victim)
    finished(connection, spec)
    assert batches.view(connection, spec.id).crashes >= 1
    assert_bytes(connection, root, spec)
    assert batches.view(connection, spec.id).warnings == ()


def test_no_built_in_is_left_out() -> None:
    """A new simulation joins the test."""
    assert set(SMALL) == set(registry.BUILT_IN)
