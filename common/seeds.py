"""The random stream of each job, from the batch's seed and the job's index alone.

Philox is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): its
output is a keyed permutation of a 256-bit counter. The key is the batch's seed and the counter's top word is
the job's index, so the streams of two jobs are 2**192 blocks apart and cannot overlap. Anyone can check job *i* with
plain NumPy::

    numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]))

A program has a generator of its own, and gets a number to seed it with: the first 63 bits of that stream::

    int(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]).random_raw()) >> 1

These numbers are as good as random, so two jobs of *n* have the same one with a probability of about n**2 / 2**64: one
in twenty million for a million jobs. Where a program takes 32 bits only, of a million jobs 116 pairs can be expected
to be one and the same job run twice, and already with 77,000 jobs such a pair is as likely as not; the estimates then
seem more certain than they are. Programs should take all 63 bits.
"""

import secrets
from typing import Any

import numpy as np


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


def seed32(seed: int) -> int:
    """The upper 32 of a seed's 63 bits; see the module for what that costs."""
    return seed >> 31
