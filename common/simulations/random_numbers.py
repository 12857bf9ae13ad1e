"""The original's job: ten random integers, their sum and their mean."""

from typing import NamedTuple

import numpy as np

NAME = "random_numbers"
OUTPUTS = ("sum", "mean")
COLUMNS = ("numbers", *OUTPUTS)


class Result(NamedTuple):
    """One job's row, in the order of its CSV columns."""

    numbers: list[int]
    sum: int
    mean: float


def random_numbers(rng: np.random.Generator) -> Result:
    """Draw ten integers uniformly from 1…100."""
    numbers: list[int] = rng.integers(1, 101, 10).tolist()
    total = sum(numbers)
    return Result(numbers, total, total / 10)
