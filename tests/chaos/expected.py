"""How each job of a batch must end, from the draws of its own stream and from what was done to the batch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from common.batch import BatchSpec, JobState
from common.simulations.faulty import KINDS
from tests import support
from tests.chaos import shell_program

COMPLETED, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED
TIMEOUT, OUT_OF_MEMORY = JobState.TIMEOUT, JobState.OUT_OF_MEMORY
ENDS = {"": COMPLETED, "flaky": COMPLETED, "raises": FAILED, "kills": FAILED}
LIMITED = {"hangs": TIMEOUT, "memory": OUT_OF_MEMORY}


@dataclass
class Told:
    """What was done to a batch, and what it excuses."""

    #: Jobs that somebody asked to cancel, whether or not an answer came.
    asked: set[int] = field(default_factory=set)
    #: Jobs that were CANCELLED when the answer came: they stay so.
    answered: set[int] = field(default_factory=set)
    #: Good jobs that may be TIMEOUT: the limit is a wall clock's, and goes on while a worker is suspended.
    suspended: int = 0
    #: Jobs that may never run, since the batch or the job that they wait for may not have completed.
    unmet: set[int] = field(default_factory=set)
    #: Jobs that must not have run: what they wait for can never be met.
    never: set[int] = field(default_factory=set)


def kinds(spec: BatchSpec) -> tuple[str, ...]:
    """What each job of the batch was chosen to do, computed with plain NumPy; "" for those that behave."""
    if spec.program:
        return tuple(map(shell_program.kind, range(1, spec.jobs + 1)))
    if spec.simulation != "faulty":
        return ("",) * spec.jobs
    return _drawn(spec.jobs, spec.seed, tuple(spec.parameters.get(kind, 0.0) for kind in KINDS))


@cache
def _drawn(jobs: int, seed: int, rates: tuple[float, ...]) -> tuple[str, ...]:
    edges, found = np.cumsum(rates), []
    for index in range(1, jobs + 1):
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, index]))
        rng.integers(1, 101, 10)
        position = int(np.searchsorted(edges, rng.random(), side="right"))
        found.append(KINDS[position] if position < len(KINDS) else "")
    return tuple(found)


def of_kind(spec: BatchSpec, *wanted: str) -> set[int]:
    """The jobs that were chosen to do so."""
    return {index for index, kind in enumerate(kinds(spec), 1) if kind in wanted}


def csv(spec: BatchSpec, index: int) -> bytes:
    """The file of a job that has completed."""
    return shell_program.csv(index) if spec.program else support.expected_csv(spec.seed, index)


def right_end(spec: BatchSpec, kind: str) -> set[JobState]:
    """The states in which a job of this kind may end, if nobody cancels it."""
    if kind == "flaky" and not spec.retries:
        # A first attempt that was lost with its slot counts: the second one is good.
        return {COMPLETED, FAILED}
    return {ENDS.get(kind) or LIMITED[kind]}


def wrong_ends(spec: BatchSpec, states: Sequence[JobState], told: Told) -> list[str]:
    """Jobs that are in a state that nothing explains."""
    wrong, late, undone = [], [], []
    for index, (kind, state) in enumerate(zip(kinds(spec), states, strict=True), 1):
        if index in told.never and state is not CANCELLED:
            wrong.append(f"{spec.id}_{index} is {state.name}, but what it waits for did not complete")
        if index in told.answered and state is not CANCELLED:
            undone.append(index)
        if state in right_end(spec, kind):
            continue
        if state is CANCELLED and index in told.asked | told.answered | told.unmet | told.never:
            continue
        if state is TIMEOUT and spec.time_limit_seconds:
            late.append(index)
            continue
        wrong.append(f"{spec.id}_{index} ({kind or 'good'}) is {state.name}")
    if len(late) > told.suspended:
        wrong.append(f"good jobs {late[:20]} are TIMEOUT, only {told.suspended} were suspended")
    if undone:
        wrong.append(f"{len(undone)} jobs such as {undone[:20]} had been cancelled, and are not")
    return wrong


def counts(states: Iterable[JobState]) -> dict[str, int]:
    """How many jobs are in which state, by name."""
    return {state.name: count for state, count in Counter(states).items()}
