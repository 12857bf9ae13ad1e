"""Run the jobs of a range until the slice ends. Nothing of Celery or Redis here."""

import itertools
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from common.batch import JobState, Reason
from common.errors import StorageUnavailable
from common.ledger.ranges import MAX_FAILURES_KEPT, Lease, Retry, Slice
from common.ledger.table import record_dtype, record_packer
from common.programs.failure import ProgramFailed
from common.programs.running import Usage
from common.runs import runs
from common.statistics import Moments, collect
from services.worker.board import Recorder
from services.worker.failure import failure_text
from services.worker.guard import Guard, Interrupted, Limited, Limits, TimeLimitReached

MOST_DELAY_SECONDS = 3600.0
# The record has one byte for it.
MOST_ATTEMPTS_SHOWN = 255
# What may go well another time.
TRIED_AGAIN = (Reason.NonZeroExitCode, Reason.RaisedSignal, Reason.NoResult)
# How often CPU time and memory are read, at most.
METER_SECONDS = 0.001
# getrusage gives bytes on macOS and kB elsewhere.
_RSS_PER_KB = 1024 if sys.platform == "darwin" else 1


class Job(Protocol):
    """What a slice runs: all jobs of one batch, by index."""

    limits: Limits

    @property
    def usage(self) -> Usage | None:
        """Where the job that was run last says what it used; None when the jobs run in this process."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the numeric outputs."""

    def compute(self, index: int, attempt: int) -> tuple[bytes, tuple[float, ...]]:
        """Run a job; returns its CSV and its numeric outputs. Whatever it raises is the job's failure."""

    def store(self, index: int, data: bytes) -> None:
        """Put a job's CSV into place. Raises :class:`StorageUnavailable`."""


class SliceFailure(Exception):
    """The slice ended early because results cannot be written; ``work`` is what was done before."""

    def __init__(self, work: Slice, reason: StorageUnavailable) -> None:
        super().__init__(str(reason))
        self.work = work
        self.reason = reason


class Meter:
    """CPU time and memory of this process. Reading costs as much as a short job's bookkeeping, so of jobs below a
    millisecond the CPU time is that of the last millisecond, in proportion.
    """  # noqa: D205 - one sentence

    def __init__(self, now: float) -> None:
        self.read_at, self.cpu_share, self.rss_kb = now, 1.0, 0
        self._cpu = 0.0
        self.read(now)

    def read(self, now: float) -> None:
        """Take stock; ``now`` is time.monotonic()."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = used.ru_utime + used.ru_stime
        if now > self.read_at:
            self.cpu_share = (cpu - self._cpu) / (now - self.read_at)
        self.read_at, self._cpu, self.rss_kb = now, cpu, used.ru_maxrss // _RSS_PER_KB


@dataclass(frozen=True)
class Ending:
    """How a job that did not complete ended."""

    state: JobState
    reason: Reason
    exit: int = 0
    signal: int = 0


def run_slice(
    job: Job,
    first: int,
    count: int,
    *,
    seconds: float,
    attempt: int,
    slot: int,
    stopping: Callable[[], bool],
    tries: int = 0,
    recorder: Recorder | None = None,
    guard: Guard | None = None,
) -> Slice:
    """Run jobs ``first`` … in order, at least one, until ``count`` are done, ``seconds`` have passed or ``stopping()``.

    A job that raises, or reaches a limit, ends so and the next one runs. Raises :class:`SliceFailure`.
    """
    limits, recorder, guard = job.limits, recorder or Recorder.private(), guard or Guard()
    pack = record_packer(job.outputs).pack
    no_outputs = (float("nan"),) * len(job.outputs)
    failures: dict[int, str] = {}
    # What the loop looks up a million times is bound once.
    run, compute, store, add = _runner(guard, recorder, job), job.compute, job.store, recorder.add
    clock, now = time.monotonic, time.time
    begin = tick = clock()
    meter = Meter(begin)
    deadline, limit_seconds = begin + seconds, limits.time_seconds
    unwritable: StorageUnavailable | None = None
    used = job.usage
    recorder.begin(first, record_dtype(job.outputs).itemsize, attempt, tries)
    recorder.start(begin)
    completed, shown = (int(JobState.COMPLETED), 0, 0, 0), min(attempt, MOST_ATTEMPTS_SHOWN)
    for index in range(first, first + count):
        started = now()
        try:
            data, outputs = run(compute, index, attempt, limit_seconds)
            store(index, data)
            state, reason, code, killer = completed
        except StorageUnavailable as error:
            unwritable = error
            break
        except Interrupted:
            break
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the simulation's failure and not ours
            end = _ending(error, limits, used)
            outputs, state, reason, code, killer = no_outputs, end.state, end.reason, end.exit, end.signal
            failures[index] = text = failure_text(error, limits)
            recorder.fail(index, text)
            if end.reason in TRIED_AGAIN and tries < limits.retries:
                state = JobState.PENDING
        ended = clock()
        elapsed = ended - tick
        if used is not None:
            cpu, rss_kb = used.cpu_seconds, used.rss_kb
        else:
            if ended - meter.read_at >= METER_SECONDS:
                meter.read(ended)
            cpu, rss_kb = elapsed * meter.cpu_share, meter.rss_kb
        add(pack(state, shown, code, slot, killer, reason, started, elapsed, cpu, rss_kb, *outputs), ended)
        tick = ended
        if ended >= deadline or recorder.full or stopping():
            break
    recorder.stop()
    work = summarise(job.outputs, first, clock() - begin, recorder.records(), failures, limits, tries)
    if unwritable is not None:
        raise SliceFailure(work, unwritable)
    return work


def _runner(guard: Guard, recorder: Recorder, job: Job) -> Callable[..., Any]:
    """What runs a job under its limits; the memory of a program is that of its own process, and seen to there."""
    memory_mb = job.limits.memory_mb if job.usage is None else 0
    return Limited(guard, memory_mb, recorder.limit).run if memory_mb or job.limits.time_seconds else guard.run


def _ending(error: BaseException, limits: Limits, used: Usage | None) -> Ending:
    if used is not None and isinstance(error, SystemExit):
        # No program can raise it: the pool ends this process.
        raise error
    if isinstance(error, TimeLimitReached):
        return Ending(JobState.TIMEOUT, Reason.TimeLimit)
    if isinstance(error, ProgramFailed):
        return Ending(error.state, error.reason, error.exit_code, error.signal)
    if isinstance(error, MemoryError) and limits.memory_mb:
        return Ending(JobState.OUT_OF_MEMORY, Reason.OutOfMemory)
    code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
    return Ending(JobState.FAILED, Reason.NonZeroExitCode, max(-32768, min(32767, code)))


def shortened(work: Slice, outputs: Sequence[str], count: int, limits: Limits, tries: int) -> Slice:
    """The first ``count`` jobs of a slice."""
    # A slice's failures are without the jobs that are tried again.
    texts = {**work.failures, **{retry.first: retry.text for retry in work.retries}}
    failures = {index: text for index, text in texts.items() if index < work.first + count}
    raw = work.records[: count * work.record_size]
    return summarise(outputs, work.first, work.seconds, raw, failures, limits, tries)


def nothing_of(lease: Lease) -> Slice:
    """A slice in which no job was run."""
    return Slice(lease.first, 0, 0.0, {}, {}, {}, b"", 1)


def summarise(
    outputs: Sequence[str],
    first: int,
    seconds: float,
    raw: bytes | memoryview,
    failures: Mapping[int, str],
    limits: Limits,
    tries: int,
) -> Slice:
    """A slice from its records: what the ledger needs to know beside them."""
    dtype = record_dtype(outputs)
    table = np.frombuffer(raw, dtype=dtype)
    good = table["state"] == JobState.COMPLETED
    codes, counts = np.unique(table["state"], return_counts=True)
    states = {JobState(int(code)): int(count) for code, count in zip(codes, counts, strict=True)}
    again = runs(table["state"] == JobState.PENDING, first) if states.pop(JobState.PENDING, 0) else []
    # Of a batch no more are kept, and Redis does nothing else while it reads them.
    ended = (pair for pair in failures.items() if table["state"][pair[0] - first] != JobState.PENDING)
    kept = dict(itertools.islice(ended, MAX_FAILURES_KEPT))
    found: dict[str, Moments] = {}
    collect(found, table[good], outputs)
    return Slice(
        first=first,
        done=len(table),
        seconds=seconds,
        states=states,
        moments=found,
        failures=kept,
        records=raw,
        record_size=dtype.itemsize,
        retries=[_retry(run, table, first, failures, limits, tries) for run in again],
        completed=runs(good, first),
    )


def _retry(
    run: tuple[int, int], table: np.ndarray, first: int, failures: Mapping[int, str], limits: Limits, tries: int
) -> Retry:
    """Exponential backoff with jitter, so that what failed together does not come back together."""
    delay = min(MOST_DELAY_SECONDS, limits.retry_delay_seconds * 2**tries) * random.uniform(0.5, 1.5)  # noqa: S311
    attempt = int(table["attempt"][run[0] - first])
    text = failures.get(run[0], "").strip().splitlines()
    return Retry(*run, tries=tries + 1, delay=delay, base=attempt - 1 - tries, text=text[-1][:200] if text else "")
