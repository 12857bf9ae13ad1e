"""Run the jobs of a range until the slice ends. Nothing of Celery or Redis here."""

import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from common.batch import JobState
from common.errors import StorageUnavailable
from common.ledger.ranges import Slice
from common.ledger.table import record_dtype, record_packer
from common.statistics import moments

MAX_ERROR_CHARACTERS = 4000
# getrusage gives bytes on macOS and kB elsewhere.
_RSS_PER_KB = 1024 if sys.platform == "darwin" else 1


class Job(Protocol):
    """What a slice runs: all jobs of one batch, by index."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the numeric outputs."""

    def run(self, index: int) -> tuple[float, ...]:
        """Run a job and put its result into place; returns its numeric outputs.

        Raises :class:`StorageUnavailable` when the result cannot be written; any other exception is the job's failure.
        """


class SliceFailure(Exception):
    """The slice ended early because results cannot be written; ``work`` is what was done before."""

    def __init__(self, work: Slice, reason: StorageUnavailable) -> None:
        super().__init__(str(reason))
        self.work = work
        self.reason = reason


def run_slice(
    job: Job, first: int, count: int, *, seconds: float, attempt: int, slot: int, stopping: Callable[[], bool]
) -> Slice:
    """Run jobs ``first`` … in order, at least one, until ``count`` are done, ``seconds`` have passed or ``stopping()``.

    A job that raises is FAILED and the next one runs. Raises :class:`SliceFailure`.
    """
    pack = record_packer(job.outputs).pack
    no_outputs = (float("nan"),) * len(job.outputs)
    records: list[bytes] = []
    failures: dict[int, str] = {}
    # What the loop looks up a million times is bound once.
    run, add, clock, now, usage = job.run, records.append, time.perf_counter, time.time, resource.getrusage
    own, completed, failed = resource.RUSAGE_SELF, int(JobState.COMPLETED), int(JobState.FAILED)
    before, begin = usage(own), clock()
    cpu, tick, deadline = before.ru_utime + before.ru_stime, begin, begin + seconds
    unwritable: StorageUnavailable | None = None
    for index in range(first, first + count):
        started = now()
        try:
            outputs, state = run(index), completed
        except StorageUnavailable as error:
            unwritable = error
            break
        except Exception:  # noqa: BLE001 - whatever a simulation raises is its own failure, not ours
            outputs, state = no_outputs, failed
            failures[index] = traceback.format_exc()[-MAX_ERROR_CHARACTERS:]
        used, ended = usage(own), clock()
        spent = used.ru_utime + used.ru_stime
        rss = used.ru_maxrss // _RSS_PER_KB
        add(pack(state, attempt, 0, slot, 0, started, ended - tick, spent - cpu, rss, *outputs))
        cpu, tick = spent, ended
        if ended >= deadline or stopping():
            break
    work = _summary(job.outputs, first, clock() - begin, b"".join(records), failures)
    if unwritable is not None:
        raise SliceFailure(work, unwritable)
    return work


def shortened(work: Slice, outputs: Sequence[str], count: int) -> Slice:
    """The first ``count`` jobs of a slice."""
    failures = {index: text for index, text in work.failures.items() if index < work.first + count}
    return _summary(outputs, work.first, work.seconds, work.records[: count * work.record_size], failures)


def _summary(
    outputs: Sequence[str], first: int, seconds: float, raw: bytes | memoryview, failures: Mapping[int, str]
) -> Slice:
    dtype = record_dtype(outputs)
    table = np.frombuffer(raw, dtype=dtype)
    good = table[table["state"] == JobState.COMPLETED]
    states = Counter({JobState.COMPLETED: len(good), JobState.FAILED: len(failures)})
    return Slice(
        first=first,
        done=len(table),
        seconds=seconds,
        states={state: jobs for state, jobs in states.items() if jobs},
        moments={name: moments(good[f"out:{name}"]) for name in outputs if len(good)},
        failures=failures,
        records=raw,
        record_size=dtype.itemsize,
    )
