"""How a simulation is checked against an answer that is known exactly.

The mean over many independent jobs is compared with the exact expectation in units of its own standard error. A right
simulation is beyond the limit of 4.5 with probability 6.8e-6 (normal, two-sided; up to 2e-5 with a standard error from
100 jobs), so all checks of these files together raise a false alarm in less than one of 1000 choices of the seed; the
seed is fixed, so a check that passes keeps passing. That a check can fail at all is shown by wrong answers, which are
what a plausible mistake would give: they must be beyond the limit.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.seeds import Streams
from common.simulations.declare import MARK, Simulation

Z_LIMIT = 4.5
SEED = 20_240_229

Results = dict[str, NDArray[np.float64]]


def declared(function: Any) -> Simulation:
    """What a decorated function declares."""
    found: Simulation = getattr(function, MARK)
    return found


def run(function: Any, jobs: int, seed: int = SEED, **parameters: Any) -> Results:
    """The outputs of this many jobs of a batch, each from its own stream; parameters are checked as for a batch."""
    simulation = declared(function)
    checked = simulation.check(parameters)
    streams = Streams(seed)
    rows = [simulation.function(streams.generator(index), **checked) for index in range(1, jobs + 1)]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in simulation.outputs}


def z_score(values: ArrayLike, expected: float) -> float:
    """How many standard errors the mean of independent values is above the expected one."""
    array = np.asarray(values, dtype=np.float64)
    return float((array.mean() - expected) / (array.std(ddof=1) / np.sqrt(array.size)))


def agrees(values: ArrayLike, expected: float) -> bool:
    """Whether the mean of independent values is within 4.5 standard errors of the expected one."""
    return abs(z_score(values, expected)) <= Z_LIMIT
