"""How long a user waits, and what it costs: ``python -m benchmarks.latency``.

Over HTTP on loopback, with one worker of two slots: a single job from request to CSV, a batch of a million from request
to its first job, and memory. Then, for jobs of 1 ms … 1 s, the share of the slots' time that is in jobs. "Nominal"
counts what the jobs were asked to wait, "measured" what they really took (sleep comes back late), from the job table.
Beside it the same of two bare processes with the same jobs, files and syncs, which is what can be reached, and Redis
commands per slot-second, our polling and those inside scripts included.
"""

import statistics
import time
from pathlib import Path

from batchsim.client import Client
from benchmarks import contenders, frame
from benchmarks.engine import Engine
from common.ledger import batches, control
from common.ledger.table import read, record_dtype

_JOB_SECONDS = (0.001, 0.02, 0.1, 1.0)
_MOST_JOBS = 4000


def main(arguments: list[str] | None = None) -> None:
    """Run and print."""
    parser = frame.parser(__doc__)
    parser.add_argument("--requests", type=int, default=200, help="single-job batches")
    parser.add_argument("--big", type=int, default=1_000_000, help="jobs of the big batch")
    parser.add_argument("--finish-big", action="store_true", help="run the big batch to its end and show the memory")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement of the slots' time")
    options = parser.parse_args(arguments)
    frame.print_heading("2 slots")
    with frame.workspace(options.dir) as base:
        root = base / "outputs"
        root.mkdir()
        with Engine(root) as engine:
            client = Client(engine.serve())
            single_jobs(client, root, options.requests)
            shares(engine, base, options.seconds)
            big_batch(engine, client, options.big, finish=options.finish_big)


def single_jobs(client: Client, root: Path, requests: int) -> None:
    """From the request to the file, on an idle system."""
    waits = []
    for _ in range(requests):
        begin = time.perf_counter()
        path = root / str(client.submit(1, 1)["id"]) / "job_1.csv"
        while not path.exists():
            time.sleep(0.0002)
        waits.append((time.perf_counter() - begin) * 1000)
        # Its results files are another matter; the next request shall find the system idle.
        while not (path.parent / "summary.json").exists():
            time.sleep(0.002)
    waits.sort()
    late = waits[int(requests * 0.95)]
    print(f"single job, request to CSV: median {statistics.median(waits):.1f} ms, 95 % {late:.1f} ms", flush=True)


def shares(engine: Engine, base: Path, seconds: float) -> None:
    """The slots' time in jobs of several lengths, in turn with bare processes."""
    rows = []
    for job_seconds in _JOB_SECONDS:
        jobs = min(_MOST_JOBS, max(engine.slots, round(engine.slots * seconds / job_seconds)))
        own = share_in_jobs(engine, job_seconds, jobs)
        root = base / f"bare-{job_seconds}"
        root.mkdir()
        floor = contenders.bare(root, jobs, slots=engine.slots, job_seconds=job_seconds)
        slot_seconds = engine.slots * floor.seconds
        bare = [f"{jobs * job_seconds / slot_seconds:.1%}", f"{floor.in_jobs / slot_seconds:.1%}"]
        rows.append([f"{job_seconds * 1000:g} ms", *own[:2], *bare, own[2]])
    frame.print_table(("jobs of", "nominal", "measured", "bare, nominal", "measured", "commands"), rows)


def share_in_jobs(engine: Engine, job_seconds: float, jobs: int) -> tuple[str, str, str]:
    """The share of the slots' time that is in jobs, nominal and measured; Redis commands per slot-second meanwhile."""
    before = _commands(engine)
    view = engine.run(jobs, job_seconds)
    commands = _commands(engine) - before
    assert view.ended
    assert view.started
    slot_seconds = engine.slots * (view.ended - view.started)
    elapsed = read(engine.connection, view.spec.id, 1, jobs, record_dtype(("sum", "mean")))["elapsed"]
    measured = float(elapsed.sum(dtype=float)) / slot_seconds
    engine.wait_finished(view.spec.id)
    return f"{jobs * job_seconds / slot_seconds:.1%}", f"{measured:.1%}", f"{commands / slot_seconds:.0f}"


def big_batch(engine: Engine, client: Client, jobs: int, *, finish: bool) -> None:
    """From the request to the first job started; with ``finish``, to the end, and the memory then."""
    begin = time.time()
    accepted = client.submit(jobs, 1)
    answered = time.time()
    while True:
        view = batches.view(engine.connection, accepted["id"])
        if view.started:
            break
        time.sleep(0.0005)
    accept_ms, first_ms = (answered - begin) * 1000, (view.started - begin) * 1000
    print(f"{jobs:,} jobs: accepted after {accept_ms:.0f} ms, first job after {first_ms:.0f} ms")
    if finish:
        while not view.ended:
            time.sleep(0.5)
            view = batches.view(engine.connection, accepted["id"])
        print(f"{jobs:,} jobs in {view.ended - (view.started or 0):.0f} s")
    else:
        control.cancel(engine.connection, accepted["id"])
    print("peak memory, MB: " + ", ".join(f"{name} {value:.0f}" for name, value in engine.peaks().items()))
    used = engine.connection.redis.info("memory")
    print(f"Redis data: {used['used_memory'] / 2**20:.0f} MB, peak {used['used_memory_peak'] / 2**20:.0f} MB")


def _commands(engine: Engine) -> int:
    return int(engine.connection.redis.info("stats")["total_commands_processed"])


if __name__ == "__main__":
    main()
