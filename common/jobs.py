"""A batch's jobs as a pure function: index → CSV bytes and numeric outputs."""

import os
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from common.batch import BatchSpec
from common.programs.process import Watch
from common.programs.running import ProgramJobs
from common.returned import Returned
from common.seeds import Streams
from common.simulations import registry
from common.sweep import Sweep

ATTEMPT = "JOB_ATTEMPT"


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
        self._read = Returned(spec.simulation, {name: found.outputs.get(name, float) for name in spec.outputs}).read
        # Of a job in which this process itself runs; to look for it at each of ours would cost as much as a small job.
        os.environ.pop(ATTEMPT, None)
        self._sweep = Sweep.from_dict(spec.sweep) if spec.sweep else None
        if self._sweep is None:
            self._call = _with_parameters(found.function, found.check(spec.parameters))
        else:
            sweep, function = self._sweep, found.function
            # The jobs of a point are neighbours, so the last one is nearly always the one that is asked for.
            self._at = lru_cache(64)(
                lambda point: _with_parameters(function, found.check({**spec.parameters, **sweep.parameters(point)}))
            )

    def result(self, index: int, attempt: int = 1) -> tuple[bytes, tuple[float, ...]]:
        """Run job ``index``; returns its CSV file's bytes and its numeric outputs.

        Raises what the function does, and :class:`common.returned.WrongResult`; of a program as
        :meth:`common.programs.running.ProgramJobs.result`.
        """
        if self._pause_seconds:
            time.sleep(self._pause_seconds)
        if attempt != 1:
            os.environ[ATTEMPT] = str(attempt)
        sweep = self._sweep
        try:
            if sweep is None:
                result = self._call(self._streams.generator(index))
            else:
                result = self._at(sweep.point(index))(self._streams.generator(sweep.stream(index)))
        finally:
            if attempt != 1:
                os.environ.pop(ATTEMPT, None)
        return self._read(result)

    def close(self) -> None:
        """Give back what programs needed; a function needs nothing."""
        if self.programs is not None:
            self.programs.close()


def _with_parameters(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The function of the generator alone.

    Each call gets a copy of what can be changed: what one job did to a list would reach the next one in its slot, and
    none in another.
    """
    own = {name: value for name, value in parameters.items() if _changes(value)}
    plain = partial(function, **{name: value for name, value in parameters.items() if name not in own})
    return (lambda rng: plain(rng, **deepcopy(own))) if own else plain


def _changes(value: Any) -> bool:
    """Whether a job could change it: of other values ``deepcopy`` makes no second one."""
    try:
        return deepcopy(value) is not value
    except Exception:  # noqa: BLE001 - what cannot be copied, such as a lock that a validator made, stays one for all
        return False
