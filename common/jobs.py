"""A batch's jobs as a pure function: index → CSV bytes and numeric outputs."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from common.batch import BatchSpec
from common.programs.process import Watch
from common.programs.running import ProgramJobs
from common.rows import RowFormat
from common.seeds import Streams
from common.simulations import registry
from common.sweep import Sweep

ATTEMPT = "JOB_ATTEMPT"


class WrongResult(TypeError):
    """A simulation returned something else than it declared; the job is FAILED with this text."""


class Jobs:
    """The jobs of one batch. The same specification and index give the same bytes, wherever and whenever.

    Of a batch with a program they are runs of that; then ``place`` is the batch's directory, which gets the programs'
    logs, ``scratch`` their working space, and ``watch`` is told of each. Raises
    :class:`common.errors.InvalidInput` when the simulation is not there, or is another version.
    """

    def __init__(
        self, spec: BatchSpec, place: Path | None = None, *, scratch: Path | None = None, watch: Watch | None = None
    ) -> None:
        self.spec = spec
        #: What runs a program for each job; None where a job is a call of a Python function.
        self.programs: ProgramJobs | None = None
        found = registry.of(spec)
        if found.program is not None:
            # Where it lies here: a declared program may lie elsewhere than on the machine that accepted the batch.
            spec = replace(spec, program={**found.program.to_dict(), "array": spec.program.get("array", "")})
            self.programs = ProgramJobs(spec, found.check, place, scratch=scratch, watch=watch)
            # In its place, so that a function's call need not ask each time.
            self.result = self.programs.result  # type: ignore[method-assign]
            return
        self._pause_seconds = spec.job_seconds
        self._streams = Streams(spec.seed)
        self._format = RowFormat(())
        self._columns: list[str] = []
        self._function, self._names = found.function, spec.outputs
        self._sweep = Sweep.from_dict(spec.sweep) if spec.sweep else None
        if self._sweep is None:
            self._fixed = found.check(spec.parameters)
        else:
            sweep = self._sweep
            # The jobs of a point are neighbours, so the last one is nearly always the one that is asked for.
            self._at = lru_cache(64)(lambda point: found.check({**spec.parameters, **sweep.parameters(point)}))

    def result(self, index: int, attempt: int = 1) -> tuple[bytes, tuple[float, ...]]:
        """Run job ``index``; returns its CSV file's bytes and its numeric outputs."""
        if self._pause_seconds:
            time.sleep(self._pause_seconds)
        if attempt != 1 or ATTEMPT in os.environ:
            os.environ[ATTEMPT] = str(attempt)
        sweep = self._sweep
        if sweep is None:
            result = self._function(self._streams.generator(index), **self._fixed)
        else:
            parameters = self._at(sweep.point(index))
            result = self._function(self._streams.generator(sweep.stream(index)), **parameters)
        if type(result) is not dict:
            return self._other(result)
        try:
            outputs = tuple([float(result[name]) for name in self._names])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._wrong(result) from None
        if list(result) != self._columns:
            self._columns = list(result)
            self._format = RowFormat(self._columns)
        return self._format(result.values()), outputs

    def close(self) -> None:
        """Give back what programs needed; a function needs nothing."""
        if self.programs is not None:
            self.programs.close()

    def _other(self, result: Any) -> tuple[bytes, tuple[float, ...]]:
        """A mapping that is no dict, or a table: a list of dicts, a 2-D array, a DataFrame."""
        if isinstance(result, Mapping):
            return self._table([dict(result)])
        if hasattr(result, "to_dict"):
            return self._table(result.to_dict("records"))
        if isinstance(result, np.ndarray) and result.ndim == 2:
            names = [f"c{number}" for number in range(result.shape[1])]
            return self._table([dict(zip(names, row, strict=True)) for row in result.tolist()])
        if isinstance(result, list) and result and all(isinstance(row, dict) for row in result):
            return self._table(result)
        raise self._wrong(result)

    def _table(self, rows: list[dict[str, Any]]) -> tuple[bytes, tuple[float, ...]]:
        """Several rows; the declared outputs are those of the last one, the state that it ended in."""
        columns = list(rows[0]) if rows else []
        if not rows or any(list(row) != columns for row in rows):
            raise WrongResult(f"{self.spec.simulation} returned rows with different columns")
        try:
            outputs = tuple(float(rows[-1][name]) for name in self._names)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._wrong(rows[-1]) from None
        whole = RowFormat(columns)
        first, *others = (whole(row.values()) for row in rows)
        header = whole.header
        return first + b"".join(row[len(header) :] for row in others), outputs

    def _wrong(self, result: Any) -> WrongResult:
        wanted = ", ".join(self._names) or "nothing numeric"
        if not isinstance(result, Mapping):
            return WrongResult(
                f"{self.spec.simulation} returned {type(result).__name__}; a dict with {wanted} is needed"
            )
        missing = [name for name in self._names if name not in result]
        if missing:
            return WrongResult(f"{self.spec.simulation} returned no {missing[0]!r}; it declares {wanted}")
        bad = next(name for name in self._names if not _is_number(result[name]))
        return WrongResult(f"{self.spec.simulation} returned {bad} = {result[bad]!r:.80}, which is no number")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True
