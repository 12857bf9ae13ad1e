"""The simulations that the system can run, by name."""

from typing import Protocol

import numpy as np

from common.errors import InvalidInput
from common.simulations import faulty, random_numbers
from common.simulations.random_numbers import Result


class Simulation(Protocol):
    """A job's work: draws from its own random stream only, so that every attempt gives the same."""

    def __call__(self, rng: np.random.Generator, attempt: int) -> Result:
        """One row."""


def _random_numbers(rng: np.random.Generator, attempt: int) -> Result:  # noqa: ARG001 - the same at every attempt
    return random_numbers.random_numbers(rng)


SIMULATIONS = (random_numbers.NAME, faulty.NAME)


def simulation(name: str, parameters: dict[str, float]) -> Simulation:
    """The simulation of this name with these parameters. Raises :class:`common.errors.InvalidInput`."""
    if name == faulty.NAME:
        return faulty.Faulty(parameters)
    if parameters:
        raise InvalidInput(f"parameters: {name} has none; name a simulation that has", field="parameters")
    return _random_numbers
