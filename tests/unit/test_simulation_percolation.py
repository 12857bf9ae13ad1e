"""The lattice against a plain search, enumerations and the threshold; see known_answers for the confidence."""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from common.simulations.percolation import percolation
from tests.unit.known_answers import agrees, declared, run, z_score

NEAR = ((0, 1), (0, -1), (1, 0), (-1, 0))
DIAGONAL = ((1, 1), (1, -1), (-1, 1), (-1, -1))
P_C = 0.592746


class Given:
    """Stands in for the generator: draws what makes exactly these sites open at p = 1/2."""

    def __init__(self, sites: np.ndarray) -> None:
        self._sites = sites

    def random(self, shape: tuple[int, int]) -> np.ndarray:
        """0 for an open site, 0.9 for a closed one."""
        assert shape == self._sites.shape
        return np.where(self._sites, 0.0, 0.9)


def cluster(sites: np.ndarray, start: tuple[int, int], steps: tuple[tuple[int, int], ...]) -> set[tuple[int, int]]:
    """All open sites connected to this one, by a search."""
    found, left = {start}, [start]
    while left:
        row, column = left.pop()
        for step in steps:
            site = row + step[0], column + step[1]
            inside = 0 <= site[0] < len(sites) and 0 <= site[1] < len(sites)
            if inside and sites[site] and site not in found:
                found.add(site)
                left.append(site)
    return found


def searched(sites: np.ndarray, steps: tuple[tuple[int, int], ...] = NEAR) -> tuple[int, float]:
    """What percolation returns for these sites: spans, largest_cluster."""
    spans = largest = 0
    left = {(int(row), int(column)) for row, column in np.argwhere(sites)}
    while left:
        found = cluster(sites, next(iter(left)), steps)
        left -= found
        rows = {row for row, _ in found}
        spans |= {0, len(sites) - 1} <= rows
        largest = max(largest, len(found))
    return int(spans), largest / sites.size


@cache
def states(size: int, steps: tuple[tuple[int, int], ...]) -> list[tuple[int, int, float]]:
    """Open sites, spans and largest cluster of every state of a small lattice."""
    every = (np.array(bits, dtype=bool).reshape(size, size) for bits in product((0, 1), repeat=size * size))
    return [(int(sites.sum()), *searched(sites, steps)) for sites in every]


def enumerated(size: int, p: float, steps: tuple[tuple[int, int], ...] = NEAR) -> dict[str, float]:
    """The exact means of a small lattice."""
    weights = [(p**k * (1 - p) ** (size * size - k), spans, largest) for k, spans, largest in states(size, steps)]
    return {"spans": sum(w * s for w, s, _ in weights), "largest_cluster": sum(w * c for w, _, c in weights)}


def spiral(size: int) -> np.ndarray:
    """A path that winds to the centre, one site wide: the hardest cluster to label."""
    sites = np.zeros((size, size), dtype=bool)
    row, column, step, turns = 0, -1, (0, 1), 0
    lengths = [size, *(n for n in range(size - 1, 0, -2) for _ in (0, 1))]
    for length in lengths:
        for _ in range(length):
            row, column = row + step[0], column + step[1]
            sites[row, column] = True
        step, turns = (step[1], -step[0]), turns + 1
    return sites


def result(sites: np.ndarray) -> tuple[int, float]:
    """What percolation says about these sites."""
    found: dict[str, Any] = declared(percolation).function(Given(sites), size=len(sites), p=0.5)
    return found["spans"], found["largest_cluster"]


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, P_C, 0.7, 1.0])
def test_clusters_are_those_of_a_search(p: float) -> None:
    """30 lattices of each density and of several sizes, site by site."""
    rng = np.random.default_rng(1)
    for size in [*range(1, 11), *(24 for _ in range(20))]:
        sites = rng.random((size, size)) < p
        assert result(sites) == pytest.approx(searched(sites))


@pytest.mark.parametrize("turned", range(4))
def test_long_paths_are_one_cluster(turned: int) -> None:
    """A spiral, and a path that meanders down every other row, in all directions."""
    meander = np.ones((21, 21), dtype=bool)
    meander[1::4, :-1] = meander[3::4, 1:] = False
    for sites in (spiral(21), meander):
        sites = np.rot90(sites, turned)
        assert result(sites) == searched(sites)
        assert result(sites)[1] == pytest.approx(sites.sum() / sites.size)


def test_enumeration_gives_known_values() -> None:
    """By hand: one site spans with p, four with 2p² − p⁴, and nine in so many ways by the number of open ones.

    With 3 only the columns do; with 4 each column with one of 6 more, or one of 4 paths with a bend in the middle
    row; with 6 all but the 17 ways in which the 3 closed ones cross from left to right, diagonal steps allowed.
    """
    assert enumerated(1, 0.6) == pytest.approx({"spans": 0.6, "largest_cluster": 0.6})
    assert enumerated(2, 0.6)["spans"] == pytest.approx(2 * 0.6**2 - 0.6**4)
    ways = [sum(spans for k, spans, _ in states(3, NEAR) if k == n) for n in range(10)]
    assert ways[:5] == [0, 0, 0, 3, 22]
    assert ways[6:] == [84 - 17, 36, 9, 1]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("p", [0.4, P_C, 0.8])
def test_small_lattice_is_exact(size: int, p: float) -> None:
    """A false alarm of one of the eighteen has the probability 7e-6."""
    jobs, exact = run(percolation, 2_000, size=size, p=p), enumerated(size, p)
    assert agrees(jobs["spans"], exact["spans"])
    assert agrees(jobs["largest_cluster"], exact["largest_cluster"])


@pytest.mark.parametrize("output", ["spans", "largest_cluster"])
def test_wrong_small_lattice_is_noticed(output: str) -> None:
    """Diagonal neighbours, p off by 10 %, closed for open, and another size."""
    jobs = run(percolation, 5_000, size=3, p=0.4)[output]
    assert agrees(jobs, enumerated(3, 0.4)[output])
    wrong = [(3, 0.4, NEAR + DIAGONAL), (3, 0.36, NEAR), (3, 0.44, NEAR), (3, 0.6, NEAR), (2, 0.4, NEAR)]
    for answer in wrong:
        assert not agrees(jobs, enumerated(*answer)[output])


def test_threshold() -> None:
    """The crossing probability of 64 × 64 is below 1/2 at p = 0.55 and above at 0.63, by 4.5 standard errors.

    So a threshold of 1/2, which bonds have, or of 0.407, which sites with diagonal neighbours have, would be noticed.
    """
    below, above = (run(percolation, 300, p=p)["spans"] for p in (0.55, 0.63))
    assert z_score(below, 0.5) < -4.5
    assert z_score(above, 0.5) > 4.5
    assert z_score(below, 0.25) < -4.5
    assert z_score(above, 0.75) > 4.5
