"""What a batch is: its specification, the states of its jobs, and its own state, derived from the counters."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from itertools import pairwise
from typing import Any, Self

from common.errors import InvalidInput
from common.settings import MAX_JOBS, MAX_SEED

# A batch starts as at most this many ranges; up to this size a job is exactly one Celery task.
INITIAL_RANGES = 64
MAX_JOB_SECONDS = 86400
RANGES_PER_SLOT = 4
LEAST_RANGES = 8


class JobState(IntEnum):
    """The state of a job; the number is what the job table stores."""

    PENDING = 0
    RUNNING = 1
    COMPLETED = 2
    FAILED = 3
    TIMEOUT = 4
    OUT_OF_MEMORY = 5
    NODE_FAIL = 6
    CANCELLED = 7
    ABORTED = 8

    @property
    def terminal(self) -> bool:
        """Whether a job in this state stays in it."""
        return self > JobState.RUNNING


class Reason(IntEnum):
    """Why a job ended as it did; Slurm's words where Slurm has one. The number is what the job table stores."""

    NONE = 0
    NonZeroExitCode = 1
    RaisedSignal = 2
    TimeLimit = 3
    OutOfMemory = 4
    CrashLimit = 5
    MaxFails = 6
    DependencyNeverSatisfied = 7
    StopRule = 8
    # A program that ended well without what it should have given; Slurm looks at no result.
    NoResult = 9


FAILED_STATES = (JobState.FAILED, JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.NODE_FAIL)


@dataclass(frozen=True)
class BatchSpec:
    """Everything that is needed to run the batch again; what ``batch.json`` holds."""

    id: int
    jobs: int
    seed: int
    simulation: str = "random_numbers"
    # Each job waits so long before it computes, s: to see how the system does with longer jobs.
    job_seconds: float = 0.0
    # Hash of the simulation's source: a worker that has another does not run it.
    version: str = ""
    # Its numeric outputs, the columns of the job table after the fixed ones.
    outputs: tuple[str, ...] = ("sum", "mean")
    parameters: dict[str, Any] = field(default_factory=dict)
    # See common/sweep.py; empty: every job has the same parameters.
    sweep: dict[str, Any] = field(default_factory=dict)
    # See common/programs/program.py; empty: the simulation is a Python function.
    program: dict[str, Any] = field(default_factory=dict)
    # Limits and order: see common/options.py. ``throttle``, ``priority`` and ``hold`` are what the batch began with.
    time_limit_seconds: float = 0.0
    memory_limit_mb: int = 0
    retries: int = 0
    retry_delay_seconds: float = 1.0
    crash_limit: int = 5
    max_fails: int | None = None
    throttle: int = 0
    priority: int = 0
    partition: str = "default"
    dependency: tuple[tuple[str, int], ...] = ()
    kill_on_invalid_dependency: bool = False
    hold: bool = False
    output_mode: str = "files"
    # Ends the batch once it is met: see common/stopping.py.
    until: str = ""
    # The start-up batch writes to outputs/ itself, as the original did; any other to outputs/<id>/.
    startup: bool = False
    # Which submit made it; a start-up batch is recognised by it even when Redis has forgotten everything.
    key: str = ""
    # Python, packages, platform and image that accepted it, and the hash of the source, also of a built-in simulation,
    # which has no version; see common/provenance.py.
    environment: dict[str, Any] = field(default_factory=dict)
    # Parameters that were not given, with the values that they had by default then. Nothing is run by them.
    defaults: dict[str, Any] = field(default_factory=dict)
    # What repeats the batch on a command line, from where it was accepted.
    command: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> str:
        """The specification as one JSON object."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The inverse of :meth:`to_json`; fields of a newer version are passed over."""
        values: dict[str, Any] = json.loads(text)
        values["dependency"] = tuple((str(kind), int(on)) for kind, on in values.get("dependency", ()))
        values["outputs"] = tuple(values.get("outputs", ("sum", "mean")))
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})


def check(jobs: int, seed: int | None, job_seconds: float) -> None:
    """Refuse a batch with a value out of range: raises :class:`InvalidInput` with the field's name."""
    if not 1 <= jobs <= MAX_JOBS:
        raise InvalidInput(f"jobs is {jobs}; it must be from 1 to {MAX_JOBS:_}", field="jobs")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise InvalidInput(f"seed is {seed}; it must be from 0 to 2**63 - 1", field="seed")
    if not 0 <= job_seconds <= MAX_JOB_SECONDS:
        raise InvalidInput(f"job_seconds is {job_seconds}; it must be from 0 to {MAX_JOB_SECONDS}", field="job_seconds")


def initial_ranges(jobs: int, slots: int = 0) -> list[tuple[int, int]]:
    """Cut jobs 1…``jobs`` into at most ``INITIAL_RANGES`` contiguous ``(first, count)`` of nearly equal size.

    Up to 64 jobs each is a range. Above that the ranges are fewer when the number of slots is known, because the end of
    a range costs a commit and a sync; slots that run idle later get parts of what the others hold.
    """
    parts = min(jobs, INITIAL_RANGES)
    if slots and jobs > INITIAL_RANGES:
        parts = min(parts, max(LEAST_RANGES, RANGES_PER_SLOT * slots))
    edges = [part * jobs // parts for part in range(parts + 1)]
    return [(low + 1, high - low) for low, high in pairwise(edges)]


def batch_state(counters: Mapping[JobState, int], *, held: bool = False) -> str:
    """The state of a batch, from how many of its jobs are in which state; never stored."""
    if counters.get(JobState.RUNNING):
        return "RUNNING"
    if counters.get(JobState.PENDING):
        return "HELD" if held else "PENDING"
    if any(counters.get(state) for state in FAILED_STATES):
        return "FAILED"
    for state in (JobState.ABORTED, JobState.CANCELLED):
        if counters.get(state):
            return state.name
    return "COMPLETED"


def range_text(batch: int, first: int, count: int) -> str:
    """A range as people read it: ``7_[1-1000]``, or ``7_42`` for a single job."""
    return f"{batch}_{first}" if count == 1 else f"{batch}_[{first}-{first + count - 1}]"
