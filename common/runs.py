"""Runs of neighbouring jobs."""

import numpy as np


def bounds(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of true begins and where it has ended, from 0, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return edges[::2], edges[1::2]


def runs(flags: np.ndarray, first: int = 1) -> list[tuple[int, int]]:
    """The runs of true among the jobs from ``first`` on, as (first, count), in order."""
    return [(first + int(low), int(high - low)) for low, high in zip(*bounds(flags), strict=True)]
