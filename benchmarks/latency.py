"""How long a user waits, and what it costs: ``python -m benchmarks.latency``.

Over HTTP on loopback, with one worker of two slots: a single job from request to CSV, a batch of a million from request
to its first job; then the share of the slots' time that is in jobs of 1 ms … 1 s, Redis commands per slot-second (our
polling and those inside scripts included), and memory.
"""

import argparse
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from batchsim.client import Client
from benchmarks.engine import Engine
from common.ledger import batches


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="single-job batches")
    parser.add_argument("--big", type=int, default=1_000_000, help="jobs of the big batch")
    parser.add_argument("--finish-big", action="store_true", help="run the big batch to its end and show the memory")
    parser.add_argument("--dir", type=Path, help="where to write (default: beside this checkout)")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=options.dir or Path.cwd()))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}")
    try:
        with Engine(base) as engine:
            port, server = _serve(engine)
            try:
                client = Client(f"http://127.0.0.1:{port}")
                single_jobs(client, base, options.requests)
                for seconds, jobs in ((0.001, 4000), (0.02, 800), (0.1, 160), (1.0, 16)):
                    share_in_jobs(engine, seconds, jobs)
                big_batch(engine, client, options.big, finish=options.finish_big)
            finally:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
    finally:
        shutil.rmtree(base, ignore_errors=True)


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
    print(f"single job, request to CSV: median {statistics.median(waits):.1f} ms, 95 % {late:.1f} ms")


def share_in_jobs(engine: Engine, job_seconds: float, jobs: int) -> None:
    """The part of two slots' time that is spent in the jobs' own time, and what Redis is asked meanwhile."""
    before = _commands(engine)
    view = engine.run(jobs, job_seconds)
    assert view.ended
    assert view.started
    slot_seconds = 2 * (view.ended - view.started)
    share = jobs * job_seconds / slot_seconds
    commands = (_commands(engine) - before) / slot_seconds
    said = f"{share:.1%} of the slots' time in jobs, {commands:.0f} Redis commands per slot-second"
    print(f"jobs of {job_seconds * 1000:g} ms: {said}")


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
        batches.cancel(engine.connection, accepted["id"])
    print("peak memory, MB: " + ", ".join(f"{name} {value:.0f}" for name, value in engine.rss_mb().items()))
    used = engine.connection.redis.info("memory")
    print(f"Redis data: {used['used_memory'] / 2**20:.0f} MB, peak {used['used_memory_peak'] / 2**20:.0f} MB")


def _commands(engine: Engine) -> int:
    return int(engine.connection.redis.info("stats")["total_commands_processed"])


def _serve(engine: Engine) -> tuple[int, "subprocess.Popen[bytes]"]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    environment = {**os.environ, "REDIS_URL": engine.url, "OUTPUT_DIR": str(engine.root), "API_PORT": str(port)}
    command = [sys.executable, "-m", "services.api", "--no-startup-batch"]
    server = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=1)
            return port, server
        except OSError:
            time.sleep(0.05)


if __name__ == "__main__":
    main()
