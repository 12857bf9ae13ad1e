"""``random_numbers`` with jobs that misbehave: to see what limits, retries and isolation do before one needs them.

Which jobs misbehave is drawn from the job's own stream, so the same seed gives the same bad jobs, and the good ones
give the same bytes as ``random_numbers``.
"""

import math
import os
import signal
import time
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from common.simulations.declare import simulation
from common.simulations.random_numbers import random_numbers

# In this order the rates share the interval from 0 to 1; what is left behaves.
KINDS = ("raises", "hangs", "memory", "kills", "flaky")

Rate = Annotated[float, Field(ge=0, le=1)]


class Misbehaved(RuntimeError):
    """What a job raises that was chosen to."""


def rates_fit(parameters: Mapping[str, Any]) -> None:
    """The parts are of one whole. Raises ValueError."""
    given = {name: parameters[name] for name in KINDS if parameters[name]}
    # As people write them, 0.7 and 0.2 and 0.1 are one.
    if math.fsum(given.values()) > 1 + 1e-9:
        raise ValueError(f"{' + '.join(given)} are {math.fsum(given.values()):.6g} of all jobs: more than 1")


@simulation(outputs={"sum": int, "mean": float}, check=rates_fit)
def faulty(
    rng: np.random.Generator,
    *,
    raises: Rate = 0.0,
    hangs: Rate = 0.0,
    memory: Rate = 0.0,
    kills: Rate = 0.0,
    flaky: Rate = 0.0,
) -> dict[str, Any]:
    """random_numbers of which a part raises, hangs, eats memory, kills its process, or fails at first only."""
    result = random_numbers(rng)
    match kind(float(rng.random()), raises, hangs, memory, kills, flaky):
        case "raises":
            raise Misbehaved("this job was chosen to fail")
        case "flaky" if os.environ.get("JOB_ATTEMPT", "1") == "1":
            raise Misbehaved("this job was chosen to fail at its first attempt")
        case "hangs":
            while True:
                time.sleep(3600)
        case "memory":
            hoard = []
            while True:
                # Touched, so that it is memory and not only addresses.
                hoard.append(np.ones(2**20))
        case "kills":
            os.kill(os.getpid(), signal.SIGKILL)
    return result


def kind(drawn: float, *rates: float) -> str:
    """What a job does that drew this number; "" when it behaves."""
    edges = np.cumsum(rates).tolist()
    return next((name for name, edge in zip(KINDS, edges, strict=True) if drawn < edge), "")
