"""The price of a European call by Monte Carlo: each job is the mean of some paths."""

from typing import Annotated

import numpy as np
from pydantic import Field

from batchsim import simulation

Positive = Annotated[float, Field(gt=0)]


@simulation(outputs={"price": float})
def european_call(
    rng: np.random.Generator,
    *,
    s0: Positive = 100.0,
    k: Positive = 100.0,
    sigma: Positive = 0.2,
    rate: float = 0.05,
    maturity: Positive = 1.0,
    paths: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000,
) -> dict[str, float]:
    """A European call under geometric Brownian motion, discounted to today."""
    normal = rng.standard_normal(paths)
    end = s0 * np.exp((rate - sigma**2 / 2) * maturity + sigma * np.sqrt(maturity) * normal)
    return {"price": float(np.exp(-rate * maturity) * np.maximum(end - k, 0).mean())}
