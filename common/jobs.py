"""A batch's jobs as a pure function: index → CSV bytes and numeric outputs."""

import time

from common.batch import BatchSpec
from common.outputs import RowFormat
from common.seeds import Streams
from common.simulations import random_numbers, simulation


class Jobs:
    """The jobs of one batch. The same specification and index give the same bytes, wherever and whenever."""

    outputs = random_numbers.OUTPUTS

    def __init__(self, spec: BatchSpec) -> None:
        self.spec = spec
        self._pause_seconds = spec.job_seconds
        self._streams = Streams(spec.seed)
        self._format = RowFormat(random_numbers.COLUMNS)
        self._simulation = simulation(spec.simulation, spec.parameters)

    def result(self, index: int, attempt: int = 1) -> tuple[bytes, tuple[float, ...]]:
        """Run job ``index``; returns its CSV file's bytes and its numeric outputs."""
        if self._pause_seconds:
            time.sleep(self._pause_seconds)
        result = self._simulation(self._streams.generator(index), attempt)
        return self._format(result), result[1:]
