"""``random_numbers`` with jobs that misbehave: to see what limits, retries and isolation do before one needs them.

Which jobs misbehave is drawn from the job's own stream, so the same seed gives the same bad jobs, and the good ones
give the same bytes as ``random_numbers``.
"""

import os
import signal
import time

import numpy as np

from common.errors import InvalidInput
from common.simulations.random_numbers import Result, random_numbers

NAME = "faulty"
# In this order the rates share the interval from 0 to 1; what is left behaves.
KINDS = ("raises", "hangs", "memory", "kills", "flaky")


class Misbehaved(RuntimeError):
    """What a job raises that was chosen to."""


class Faulty:
    """Parameters ``raises``, ``hangs``, ``memory``, ``kills`` and ``flaky``: the part of the jobs, 0…1, that does so.

    A flaky job raises at its first attempt only.
    """

    def __init__(self, parameters: dict[str, float]) -> None:
        unknown = sorted(set(parameters) - set(KINDS))
        if unknown:
            raise InvalidInput(f"{unknown[0]} is not a parameter; there are {', '.join(KINDS)}", field="parameters")
        self._edges = np.cumsum([parameters.get(kind, 0.0) for kind in KINDS]).tolist()
        if min(parameters.values(), default=0.0) < 0 or self._edges[-1] > 1:
            raise InvalidInput("the parameters must be parts of the jobs, from 0 to 1 altogether", field="parameters")

    def __call__(self, rng: np.random.Generator, attempt: int) -> Result:
        """One row, unless this job is one of the bad ones."""
        result = random_numbers(rng)
        kind = self.kind(float(rng.random()))
        if kind == "raises" or (kind == "flaky" and attempt == 1):
            raise Misbehaved(f"this job was chosen to fail at attempt {attempt}")
        if kind == "hangs":
            while True:
                time.sleep(3600)
        if kind == "memory":
            hoard = []
            while True:
                # Touched, so that it is memory and not only addresses.
                hoard.append(np.ones(2**20))
        if kind == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def kind(self, drawn: float) -> str:
        """What a job does that drew this number."""
        return next((kind for kind, edge in zip(KINDS, self._edges, strict=True) if drawn < edge), "")
