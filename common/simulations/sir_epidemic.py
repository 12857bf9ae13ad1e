"""An epidemic in a closed population: susceptible, infectious, recovered."""

from typing import Annotated

import numpy as np
from pydantic import Field

from common.simulations.declare import simulation

People = Annotated[int, Field(ge=1, le=1_000_000_000, description="people; those infectious at the start belong to it")]
Infected = Annotated[int, Field(ge=1, le=1_000_000_000, description="people that are infectious at the start")]
R0 = Annotated[float, Field(ge=0, le=100, description="people whom one infectious meets closely before recovery")]
Recovery = Annotated[float, Field(ge=0.001, le=1, description="probability to recover at each step; 1: Reed-Frost")]


@simulation(outputs={"final_size": float, "peak": float, "duration": int})
def sir_epidemic(
    rng: np.random.Generator,
    *,
    population: People = 1_000,
    infected: Infected = 10,
    r0: R0 = 2.0,
    recovery: Recovery = 0.2,
) -> dict[str, float]:
    """A chain-binomial SIR epidemic in a population that mixes evenly.

    In each step every susceptible escapes each infectious with the probability exp(−r0·recovery/population); then
    each who was infectious in it recovers with the probability ``recovery``, so the infectious time is geometric
    with the mean 1/recovery steps. ``final_size`` is the part of the population that was ever infectious, those
    at the start included, ``peak`` the largest part infectious at once, ``duration`` the steps until nobody is.
    Raises ValueError if ``infected`` is more than ``population``.

    In a large population a major outbreak has the final size z of 1 − z = (1 − infected/population)·exp(−r0·z).

    References: W. O. Kermack, A. G. McKendrick, "A contribution to the mathematical theory of epidemics", Proceedings
    of the Royal Society A 115 (1927) 700–721; H. Abbey, "An examination of the Reed-Frost theory of epidemics",
    Human Biology 24 (1952) 201–233; F. Ball, "A unified approach to the distribution of total size and total area
    under the trajectory of infectives in epidemic models", Advances in Applied Probability 18 (1986) 289–310.
    """
    if infected > population:
        raise ValueError(f"infected is {infected}: it must be at most the population, {population}")
    contact = r0 * recovery / population
    susceptible, infectious = population - infected, infected
    peak, duration = infectious, 0
    while infectious:
        new = int(rng.binomial(susceptible, -np.expm1(-contact * infectious)))
        infectious += new - int(rng.binomial(infectious, recovery))
        susceptible -= new
        peak = max(peak, infectious)
        duration += 1
    return {"final_size": (population - susceptible) / population, "peak": peak / population, "duration": duration}
