"""What happens in a random run: a pure function of its seed, without end."""

import random
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from tests.chaos.ways import WayToDie

# Short, so that hanging jobs cost little; far longer than a good job of a batch that has it.
# A wall clock: shorter, and a machine that is busy with other things makes good jobs late.
TIME_LIMIT_SECONDS = 1.0
# A process has to be started besides.
PROGRAM_TIME_LIMIT_SECONDS = 3.0
MEMORY_LIMIT_MB = 64
DEPENDENCIES = ("afterok", "afterany", "afternotok", "aftercorr")


class Act(Enum):
    """What somebody does to a batch."""

    CANCEL = "cancel a part"
    CANCEL_RUNNING = "cancel what runs"
    HOLD = "hold"
    RELEASE = "release"
    THROTTLE = "set the throttle"
    PRIORITY = "set the priority"
    REQUEUE = "run again what failed"


class Wanted(NamedTuple):
    """A batch to submit; ``after`` is the kind of its dependency and how many batches before it the other came."""

    jobs: int
    job_seconds: float
    seed: int
    options: dict[str, Any]
    after: tuple[str, int] | None = None
    #: Its jobs are runs of :mod:`tests.chaos.shell_program`.
    program: bool = False


class Step(NamedTuple):
    """After ``wait`` seconds a fault, or an act on batch ``which`` of the round, with a number from 0 to 1."""

    wait: float
    what: WayToDie | Act
    which: int = 0
    number: float = 0.0


class Round(NamedTuple):
    """Batches to submit, and what happens to them."""

    batches: list[Wanted]
    steps: list[Step]


def rounds(seed: int) -> Iterator[Round]:
    """What happens in the run with this seed; nothing that happens in the run changes it."""
    chance = random.Random(seed)
    while True:
        wanted: list[Wanted] = []
        for _ in range(chance.randint(1, 3)):
            wanted.append(_batch(chance, wanted))
        steps = [_step(chance, len(wanted)) for _ in range(chance.randint(4, 9))]
        yield Round(wanted, steps)


def _batch(chance: random.Random, before: list[Wanted]) -> Wanted:
    kind = chance.choices(["good", "faulty", "program"], [5, 4, 2])[0]
    jobs, seconds = {"good": _size, "faulty": _faulty_size, "program": _program_size}[kind](chance)
    options: dict[str, Any] = {"output_mode": chance.choice(["files", "packed"])}
    if kind == "faulty":
        options |= _misbehaviour(chance)
    elif kind == "program":
        options |= _limits(chance) | {"time_limit_seconds": PROGRAM_TIME_LIMIT_SECONDS}
    if chance.random() < 0.2:
        options["throttle"] = chance.randint(1, 4)
    if chance.random() < 0.3:
        options["priority"] = chance.randint(-100, 100)
    after = None
    if before and chance.random() < 0.3:
        after = chance.choice(DEPENDENCIES), chance.randint(1, len(before))
        # What can never be met ends, so that the round does.
        options["kill_on_invalid_dependency"] = True
        if after[0] == "aftercorr":
            jobs = before[-after[1]].jobs
            seconds = min(seconds, before[-after[1]].job_seconds)
    return Wanted(jobs, seconds, chance.randrange(2**53), options, after, kind == "program")


def _size(chance: random.Random) -> tuple[int, float]:
    """Jobs and seconds of a job: few or many, shorter or longer than a slice."""
    few, long = (chance.randint(1, 64), 0.05), (chance.randint(8, 40), 0.5)
    many, medium = (chance.randint(65, 5_000), 0.001), (chance.randint(500, 2_000), 0.01)
    # The large ones take longest to check, file by file.
    return chance.choices([few, long, many, medium, (20_000, 0.0), (60_000, 0.0)], [6, 4, 6, 6, 3, 1])[0]


def _faulty_size(chance: random.Random) -> tuple[int, float]:
    return chance.randint(5, 1_000), chance.choice([0.0, 0.001, 0.01])


def _program_size(chance: random.Random) -> tuple[int, float]:
    return chance.randint(1, 400), 0.0


def _misbehaviour(chance: random.Random) -> dict[str, Any]:
    """A few bad jobs of each kind, whatever the size: those that kill or hang cost a second or so each."""
    rates = {"raises": 0.1, "flaky": 0.1, "hangs": 0.01, "memory": 0.01, "kills": 0.005}
    chosen = chance.sample(sorted(rates), chance.randint(1, len(rates)))
    return {
        "simulation": "faulty",
        "parameters": {name: chance.uniform(0, rates[name]) for name in chosen},
        **_limits(chance),
    }


def _limits(chance: random.Random) -> dict[str, Any]:
    return {
        "time_limit_seconds": TIME_LIMIT_SECONDS,
        "memory_limit_mb": MEMORY_LIMIT_MB,
        "retries": chance.randint(1, 3),
        "retry_delay_seconds": 0.1,
    }


def _step(chance: random.Random, batches: int) -> Step:
    what = chance.choice(list(WayToDie)) if chance.random() < 0.5 else chance.choice(list(Act))
    return Step(chance.uniform(0.05, 1.5), what, chance.randrange(batches), chance.random())
