"""The original's job: ten random integers, their sum and their mean."""

from typing import Any

import numpy as np

from common.simulations.declare import simulation


@simulation(outputs={"sum": int, "mean": float})
def random_numbers(rng: np.random.Generator) -> dict[str, Any]:
    """Ten integers drawn uniformly from 1…100, their sum and their mean."""
    numbers: list[int] = rng.integers(1, 101, 10).tolist()
    total = sum(numbers)
    return {"numbers": numbers, "sum": total, "mean": total / 10}
