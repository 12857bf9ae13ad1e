"""π from random points in a square: the smallest simulation whose right answer everybody knows."""

from typing import Annotated

import numpy as np
from pydantic import Field

from common.simulations.declare import simulation

Points = Annotated[int, Field(ge=1, le=10_000_000, description="points drawn; the error falls with their square root")]


@simulation(outputs={"pi": float, "inside": int})
def monte_carlo_pi(rng: np.random.Generator, *, points: Points = 10_000) -> dict[str, float]:
    """An estimate of π from the part of uniform random points that lie in the quarter circle.

    ``inside`` is binomial with probability π/4, and ``pi`` is 4·inside/points: unbiased, with the standard error
    √(π(4−π)/points), 0.016 with the defaults.

    Reference: J. M. Hammersley, D. C. Handscomb, "Monte Carlo Methods", 1964, chapter 5 (hit-or-miss).
    """
    x, y = rng.random((2, points))
    inside = int(np.count_nonzero(x * x + y * y < 1))
    return {"pi": 4 * inside / points, "inside": inside}
