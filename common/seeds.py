"""The random stream of each job, from the batch's seed and the job's index alone.

Philox is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): its
output is a keyed permutation of a 256-bit counter. The key is the batch's seed and the counter's top word is
the job's index, so the streams of two jobs are 2**192 blocks apart and cannot overlap. Anyone can check job *i* with
plain NumPy::

    numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]))

A program has a generator of its own, and gets a number to seed it with: the first 63 bits of that stream::

    int(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]).random_raw()) >> 1

These numbers are as good as random, so two jobs of *n* have the same one with a probability of about n**2 / 2**64: one
in twenty million for a million jobs. Cut to 32 bits they would not do: of a million jobs 116 pairs would be one and the
same job run twice. For programs that take no more than an ``int`` there is :func:`seed31`, a permutation of the 31-bit
numbers that the batch's seed chooses, so that no two jobs of a batch share one.
"""

import secrets
from functools import lru_cache
from typing import Any

import numpy as np

_BITS31 = 2**31 - 1
_ODD = 0x45D9F3B


def draw_seed() -> int:
    """A new random seed; below 2**53, so that every JSON reader keeps it exactly."""
    return secrets.randbits(53)


class Streams:
    """The jobs' generators for one seed.

    One generator is re-positioned for each job, which costs a tenth of making a new one; so a job's generator is
    valid until the next call of :meth:`generator`.
    """

    def __init__(self, seed: int) -> None:
        self._philox = np.random.Philox(key=seed)
        self._generator = np.random.Generator(self._philox)
        self._state: Any = self._philox.state
        self._counter = np.zeros(4, dtype=np.uint64)
        # All that a used generator has changed must go back to how a fresh one starts: the output buffer
        # is empty (position 4 of 4) and no half of a 64-bit word is left over.
        self._state["state"]["counter"] = self._counter
        self._state |= {"buffer_pos": 4, "has_uint32": 0, "uinteger": 0}

    def generator(self, index: int) -> np.random.Generator:
        """The generator of job ``index``, at the start of its stream."""
        self._counter[3] = index
        self._philox.state = self._state
        return self._generator

    def seed(self, index: int) -> int:
        """What a program is seeded with for job ``index``: from 0 to 2**63 - 1. Uses the generator."""
        self._counter[3] = index
        self._philox.state = self._state
        return int(self._philox.random_raw()) >> 1


def seed31(seed: int, index: int) -> int:
    """What a program is seeded with that takes 31 bits: from 0 to 2**31 - 1, another for each of a batch's jobs.

    Each round is one to one on 31 bits: an exclusive or with a key, a product with an odd number, and a shift that
    leaves the upper bits as they are (as in the finalizer of Appleby's MurmurHash3). The keys are those of NumPy's
    ``SeedSequence`` for the batch's seed, so that the numbers of two batches have nothing to do with each other.
    """
    for key in _keys31(seed):
        index = (index ^ key) * _ODD & _BITS31
        index ^= index >> 15
    return index


@lru_cache(16)
def _keys31(seed: int) -> tuple[int, ...]:
    return tuple(int(word) & _BITS31 for word in np.random.SeedSequence(seed).generate_state(4))
