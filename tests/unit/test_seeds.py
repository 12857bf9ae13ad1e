"""The random stream of a job depends on the batch's seed and the job's index, and on nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.seeds import Streams, draw_seed
from common.settings import MAX_JOBS, MAX_SEED

SEEDS = st.integers(0, MAX_SEED)
INDICES = st.integers(1, MAX_JOBS)


def plain(seed: int, index: int) -> np.random.Generator:
    """The stream as the documentation defines it."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, index]))


def use(rng: np.random.Generator) -> list[float]:
    """Draws of several kinds: an odd number of 32-bit words, 64-bit words, and floats."""
    words = rng.integers(0, 2**32, 3, dtype=np.uint32).tolist()
    integers = rng.integers(1, 101, 11).tolist()
    return [*words, *integers, *rng.random(3).tolist(), *rng.normal(size=3).tolist(), float(rng.integers(2**62))]


@given(SEEDS, st.lists(INDICES, min_size=1, max_size=5))
def test_equals_plain_numpy_in_any_order(seed: int, indices: list[int]) -> None:
    """One Streams object gives plain NumPy's numbers for any indices in any order, repeated ones too."""
    streams = Streams(seed)
    for index in [*indices, *reversed(indices)]:
        assert use(streams.generator(index)) == use(plain(seed, index))


@given(SEEDS, INDICES, INDICES, st.integers(0, 9))
def test_equals_plain_numpy_after_partial_use(seed: int, before: int, index: int, drawn: int) -> None:
    """What an earlier job drew, an odd number of 32-bit words too, does not reach the next one."""
    streams = Streams(seed)
    streams.generator(before).integers(0, 2**32, drawn, dtype=np.uint32)
    assert use(streams.generator(index)) == use(plain(seed, index))


def test_largest_seed_and_index() -> None:
    """The limits themselves work."""
    assert use(Streams(MAX_SEED).generator(MAX_JOBS)) == use(plain(MAX_SEED, MAX_JOBS))


def test_drawn_seed_survives_every_json_reader() -> None:
    """A random seed is below 2**53, and two of them differ."""
    seeds = {draw_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**53 and int(float(seed)) == seed for seed in seeds)
