"""What tests use beside fixtures: waiting, processes, expected results, slices made by hand."""

import contextlib
import csv
import io
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from common.batch import JobState
from common.ledger import Connection, batches, ranges
from common.ledger.ranges import Retry, Slice
from common.ledger.table import record_dtype, record_packer

REPO = Path(__file__).resolve().parents[1]
OUTPUTS = ("sum", "mean")
RECORD_SIZE = record_dtype(OUTPUTS).itemsize
POLL_SECONDS = 0.01
PORTS_PER_PROCESS = 1_000

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T],
    timeout: float = 30.0,
    what: str = "the condition",
    state: Callable[[], object] | None = None,
) -> T:
    """Poll until the condition is truthy and return it; on time-out fail and print the last state seen."""
    deadline = time.monotonic() + timeout
    while True:
        # Before the look: whoever stood still until now has not looked in vain.
        over = time.monotonic() > deadline
        seen = condition()
        if seen:
            return seen
        if over:
            last = state() if state else seen
            raise AssertionError(f"{what} did not come true within {timeout} s; last seen:\n{last}")
        time.sleep(POLL_SECONDS)


def environment(**settings: object) -> dict[str, str]:
    """A clean environment for a child process: only what it needs to start, and these settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "CI") if name in os.environ}
    given = {name: str(value) for name, value in settings.items()}
    return {**kept, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", **given}


@dataclass
class Running:
    """A process of the system in a session of its own, with all that it prints in a file."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self.process.pid

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code; fails with its log when it does not end in time."""
        wait_for(lambda: self.process.poll() is not None, timeout, f"the end of {self.process.args!r}", self.text)
        return self.process.returncode

    def kill(self) -> None:
        """Kill the whole group, whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


def start(command: Sequence[str], env: Mapping[str, str], directory: Path, name: str = "process") -> Running:
    """Start a process in its own session, in ``directory``, with SIGINT as a terminal's child has it."""
    log = directory / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=dict(env), cwd=directory, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_default_sigint,
        )  # fmt: skip
    return Running(process, log)


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def runs(pid: int) -> bool:
    """Whether the process runs: one that has ended counts as gone also before its parent has asked for it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def python(*arguments: str) -> list[str]:
    """A command line of this Python."""
    return [sys.executable, *arguments]


def _ports() -> Iterator[int]:
    """Those of this process of pytest-xdist, each once in a long time, from a random one on.

    None that the system gives away itself, which begin at 32,768: between the choice and the bind it would.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, offset = 10_000 + PORTS_PER_PROCESS * (number % 22), secrets.randbelow(PORTS_PER_PROCESS)
    return (first + position % PORTS_PER_PROCESS for position in itertools.count(offset))


_PORTS = _ports()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on; each of 22 processes side by side has its own."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: they go on for ever")


def expected_row(seed: int, index: int) -> tuple[list[int], int, float]:
    """The job's result, computed with plain NumPy and nothing of ours."""
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, index]))
    numbers = rng.integers(1, 101, 10).tolist()
    return numbers, sum(numbers), sum(numbers) / 10


@cache
def expected_csv(seed: int, index: int) -> bytes:
    """The job's file, computed with plain NumPy and the csv module."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("numbers", "sum", "mean"), expected_row(seed, index)])
    return buffer.getvalue().encode()


def files(root: Path) -> dict[str, bytes]:
    """The CSVs in a directory by name."""
    return {path.name: path.read_bytes() for path in root.glob("job_*.csv")}


def expected_files(seed: int, jobs: int) -> dict[str, bytes]:
    """What :func:`files` gives for a complete batch."""
    return {f"job_{index}.csv": expected_csv(seed, index) for index in range(1, jobs + 1)}


def differences(found: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> list[str]:
    """Names of files that are missing, surplus or other; short, so that a failure can be read."""
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))[:10]


def slice_of(
    first: int,
    values: Iterable[float],
    *,
    seconds: float = 0.5,
    failed: Sequence[int] = (),
    retried: Sequence[int] = (),
    attempt: int = 1,
    tries: int = 0,
    delay: float = 60.0,
) -> Slice:
    """A slice as ``run_slice`` makes it: one job for each value, whose ``sum`` is the value and ``mean`` its tenth.

    Jobs in ``failed`` end so, those in ``retried`` failed and are tried again after ``delay`` seconds.
    """
    given = list(values)
    pack = record_packer(OUTPUTS).pack
    other = {**dict.fromkeys(failed, JobState.FAILED), **dict.fromkeys(retried, JobState.PENDING)}
    states = [other.get(first + i, JobState.COMPLETED) for i in range(len(given))]
    good = np.array([v for v, state in zip(given, states, strict=True) if state is JobState.COMPLETED])
    records = b"".join(
        pack(state, attempt, 0, 1, 0, 0, 1.0, 0.5, 0.25, 1000, v, v / 10)
        for v, state in zip(given, states, strict=True)
    )
    counted = {state: states.count(state) for state in set(states) - {JobState.PENDING}}
    moments = {"sum": _moments(good), "mean": _moments(good / 10)} if len(good) else {}
    failures = dict.fromkeys(failed, "ValueError: made by hand")
    retries = [
        Retry(low, count, tries + 1, delay, attempt - 1 - tries, "ValueError: made by hand")
        for low, count in _runs(first, states, JobState.PENDING)
    ]
    completed = _runs(first, states, JobState.COMPLETED)
    return Slice(first, len(given), seconds, counted, moments, failures, records, RECORD_SIZE, retries, completed)


def _runs(first: int, states: Sequence[JobState], wanted: JobState) -> list[tuple[int, int]]:
    found, position = [], first
    for state, group in itertools.groupby(states):
        count = len(list(group))
        if state is wanted:
            found.append((position, count))
        position += count
    return found


def _moments(values: "np.ndarray[Any, Any]") -> tuple[int, float, float, float, float]:
    deviation = values - values.mean()
    return len(values), float(values.mean()), float((deviation**2).sum()), float(values.min()), float(values.max())


def dump(connection: Connection) -> dict[bytes, object]:
    """Everything that Redis holds, by key, serialized by Redis itself, but for the order of a hash's fields.

    Redis moves the fields of a hash that has grown to a larger table step by step, also while they are read.
    """

    def value(key: bytes) -> object:
        is_hash = connection.command("TYPE", key) == b"hash"
        return connection.redis.hgetall(key) if is_hash else connection.command("DUMP", key)

    return {key: value(key) for key in connection.command("KEYS", "*")}


def counted(connection: Connection, batch: int) -> dict[str, int]:
    """The batch's counters that are not zero; fails when they do not sum to its jobs."""
    view = batches.view(connection, batch)
    assert sum(view.counters.values()) == view.spec.jobs, view.counters
    assert min(view.counters.values()) >= 0, view.counters
    return {state.name: count for state, count in view.counters.items() if count}


def finish(connection: Connection, batch: int, values: Mapping[int, float] | None = None) -> None:
    """Complete all that waits, as slots would, each job with its index or the given value; no files are written."""
    while True:
        lease, _ = ranges.claim(connection, (batch, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
        if lease is None:
            break
        given = [(values or {}).get(index, float(index)) for index in range(lease.first, lease.first + lease.count)]
        ranges.commit(connection, lease, slice_of(lease.first, given), lease_seconds=60, slice_seconds=1)
    assert batches.view(connection, batch).ended
