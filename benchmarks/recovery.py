"""How long work stands still when a part is killed: ``python -m benchmarks.recovery``.

Two workers with two slots each, and each slot at a job of one second. Then, at a random moment, ``kill -9`` of a slot,
of a worker with its slots (not started again: the other one takes over), or of Redis (started again at once, with its
append-only file). Which worker it hits is random, too, since one of them is the housekeeper.

Measured is the time until the ledger shows all jobs that the killed part was at as committed, so it contains the second
that such a job runs again; for Redis also the time until a batch that is submitted as soon as it is back has ended, for
which Celery must have reconnected.
"""

import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import frame
from benchmarks.engine import Engine
from benchmarks.processes import TookTooLong, wait_for
from benchmarks.system import REDIS
from common.batch import BatchSpec, JobState
from common.errors import BrokerUnavailable
from common.ledger import Connection, batches, ranges
from common.ledger.table import read, record_dtype

JOB_SECONDS = 1.0
LIMIT_SECONDS = 120.0
SLOT, WORKER, REDIS_JOBS, REDIS_NEW = "a slot", "a worker", "Redis: its jobs", "Redis: a new batch"

Times = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> None:
    """Run and print a table."""
    parser = frame.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--leases", type=frame.numbers, default=[15, 3], help="LEASE_SECONDS (default: 15,3)")
    options = parser.parse_args(arguments)
    frame.print_heading(f"2 workers with 2 slots each, jobs of {JOB_SECONDS:g} s, {options.rounds} rounds")
    rows = []
    with frame.workspace(options.dir) as base:
        for lease in options.leases:
            root = base / f"lease-{lease}"
            root.mkdir()
            times = measure(root, lease, options.rounds)
            rows += [[part, f"{lease}", *_figures(values)] for part, values in times.items()]
    frame.print_table(("killed", "LEASE_SECONDS", "median, s", "worst, s"), rows)


def _figures(values: list[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.2f}", f"{max(values):.2f}"


def measure(root: Path, lease: int, rounds: int) -> Times:
    """Kill each part in turn, ``rounds`` times."""
    times: Times = {SLOT: [], WORKER: [], REDIS_JOBS: [], REDIS_NEW: []}
    chance = random.Random(lease)
    with Engine(root, slots=2, workers=2, LEASE_SECONDS=str(lease)) as engine:
        for _ in range(rounds):
            for kill in (_kill_slot, _kill_worker, _kill_redis):
                spec = all_at_work(engine)
                time.sleep(chance.uniform(0.1, 0.7) * JOB_SECONDS)
                for name, seconds in kill(engine, spec, chance.choice(engine.workers)).items():
                    times[name].append(seconds)
                    print(f"  lease {lease} s, {name}: {seconds:.2f} s", file=sys.stderr, flush=True)
                if len(engine.workers) < 2:
                    engine.start_worker()
                engine.wait_ready()
    return times


def all_at_work(engine: Engine) -> BatchSpec:
    """Submit a batch of one job a slot and return when each slot is at its job; tried again until that is so."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        spec = engine.submitter.submit(engine.slots, 42, job_seconds=JOB_SECONDS)
        view = batches.view(engine.connection, spec.id)
        while not view.ended:
            if view.counters[JobState.RUNNING] == engine.slots:
                return spec
            time.sleep(0.01)
            view = batches.view(engine.connection, spec.id)
    raise TookTooLong(f"the slots did not all work at once within {LIMIT_SECONDS:g} s")


def _kill_slot(engine: Engine, spec: BatchSpec, worker: str) -> dict[str, float]:
    entry = next(entry for entry in engine.board(worker) if entry.token)
    jobs = _jobs_of(engine, [entry.token])
    begin = time.monotonic()
    os.kill(entry.pid, signal.SIGKILL)
    _wait_committed(engine, spec, jobs)
    return {SLOT: time.monotonic() - begin}


def _kill_worker(engine: Engine, spec: BatchSpec, worker: str) -> dict[str, float]:
    jobs = _jobs_of(engine, (entry.token for entry in engine.board(worker) if entry.token))
    begin = time.monotonic()
    engine.kill_worker(worker)
    _wait_committed(engine, spec, jobs)
    return {WORKER: time.monotonic() - begin}


def _kill_redis(engine: Engine, spec: BatchSpec, _worker: str) -> dict[str, float]:
    begin = time.monotonic()
    engine.kill(REDIS)
    engine.start_redis()
    fresh = engine.submitter.submit(1, 42)
    _wait_committed(engine, spec, range(1, spec.jobs + 1))
    committed = time.monotonic() - begin
    _wait_committed(engine, fresh, [1])
    return {REDIS_JOBS: committed, REDIS_NEW: time.monotonic() - begin}


def _jobs_of(engine: Engine, tokens: Iterable[str]) -> list[int]:
    """The jobs that are run under these leases: each range is one job."""
    found = [ranges.lookup(engine.connection, token) for token in tokens]
    return [ticket.first for ticket in found if ticket]


def _wait_committed(engine: Engine, spec: BatchSpec, jobs: Iterable[int]) -> None:
    connection = Connection(engine.url, timeout_seconds=1.0, retries=0)
    dtype = record_dtype(("sum", "mean"))
    wanted = [index - 1 for index in jobs]
    assert wanted

    def committed() -> bool:
        try:
            states = read(connection, spec.id, 1, spec.jobs, dtype)["state"][wanted]
        except BrokerUnavailable:
            return False
        return all(JobState(int(state)).terminal for state in states)

    wait_for(committed, LIMIT_SECONDS, "the commit of what was killed", poll=0.005)
    connection.close()


if __name__ == "__main__":
    main()
