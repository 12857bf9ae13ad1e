"""Each benchmark runs with tiny sizes and prints its table; what it measures is not judged here."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import support
from tests.support import REPO

Benchmark = Callable[..., str]


@pytest.fixture
def benchmark(redis_binary: str, root: Path) -> Benchmark:
    """Runs a benchmark as a user does; returns what it prints."""

    def run(module: str, *arguments: str) -> str:
        command = support.python("-m", f"benchmarks.{module}", *arguments, "--dir", str(root))
        done = subprocess.run(command, cwd=REPO, env=support.environment(), capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(root.iterdir()) == [], "it left something behind"
        return done.stdout

    return run


def cells(output: str, name: str) -> list[str]:
    """The numbers in the first line of the table that begins with ``name``."""
    line = next(line for line in output.splitlines() if line.startswith(name))
    return re.findall(r"[\d,.]+%?", line.removeprefix(name))


def test_throughput_beside_the_limit(benchmark: Benchmark) -> None:
    """What `make bench` runs: two contenders, speed, ratio and memory."""
    output = benchmark("throughput", "--jobs", "50", "--rounds", "1")
    assert cells(output, "two bare processes")[1] == "1.00"
    assert len(cells(output, "hpc-batch-sim")) == 5
    assert "Celery" not in output


@pytest.mark.slow
def test_throughput_of_several_sizes(benchmark: Benchmark) -> None:
    """All contenders at each size, and what a job costs at the largest against the smallest."""
    output = benchmark("throughput", "--sizes", "20,50", "--rounds", "1", "--all")
    for name in ("two bare", "hpc-batch-sim", "Celery chunks", "Celery, one task", "multiprocessing.Pool"):
        assert len(re.findall(f"^{name}", output, re.MULTILINE)) == 3
    assert "largest size" in output


@pytest.mark.slow
def test_plain_celery(benchmark: Benchmark) -> None:
    """One task a job and chunks, with the time that sending took."""
    output = benchmark("plain_celery", "--jobs", "50", "--rounds", "1")
    assert cells(output, "Celery, one task a job")[0] == "50"
    assert cells(output, "Celery chunks")[0] == "50"


@pytest.mark.slow
def test_programs(benchmark: Benchmark) -> None:
    """The engine and a bare loop side by side."""
    output = benchmark("programs", "--jobs", "20", "--rounds", "1")
    assert len(cells(output, "bare posix_spawn")) == len(cells(output, "hpc-batch-sim")) == 2
    assert "median overhead" in output


@pytest.mark.slow
def test_recovery(benchmark: Benchmark) -> None:
    """Every part is killed once, and what it was at is committed."""
    output = benchmark("recovery", "--rounds", "1", "--leases", "1")
    for part in ("a slot", "a worker", "Redis: its jobs", "Redis: a new batch"):
        assert len(cells(output, part)) == 3


@pytest.mark.slow
def test_memory(benchmark: Benchmark) -> None:
    """One row a size."""
    output = benchmark("memory", "--jobs", "50,200")
    assert len(cells(output, "50")) == len(cells(output, "200")) == 7


@pytest.mark.slow
def test_latency(benchmark: Benchmark) -> None:
    """Waiting times, and shares that are no more than everything."""
    output = benchmark("latency", "--requests", "2", "--seconds", "0.2", "--big", "100", "--finish-big")
    assert "single job" in output
    for length in ("1 ms", "20 ms", "100 ms", "1000 ms"):
        shares = [float(cell.rstrip("%")) for cell in cells(output, length)[:4]]
        assert all(0 < share <= 100 for share in shares)


def test_estimates(benchmark: Benchmark) -> None:
    """Four addresses, each with its median and its longest time."""
    output = benchmark("estimates", "--jobs", "3000")
    for what in ("all jobs", "a page of", "the batch", "the sweep"):
        assert len(re.findall(f"^{what} .* s .* s$", output, re.MULTILINE)) == 1


def test_sizes_that_do_not_fit_are_refused(benchmark: Benchmark) -> None:
    """A disk that is too small is said before anything runs."""
    with pytest.raises(AssertionError, match="are free"):
        benchmark("memory", "--jobs", "99000000000")
