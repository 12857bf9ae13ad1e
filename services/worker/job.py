"""The jobs of one batch in one slot: random stream, simulation, CSV."""

from pathlib import Path

from common import outputs, results
from common.batch import BatchSpec
from common.errors import InvalidInput, StorageUnavailable
from common.jobs import Jobs
from common.programs.failure import ProgramFailed
from common.programs.process import Watch
from common.programs.running import NOT_EXECUTABLE, Usage
from common.simulations import registry
from services.worker.guard import Limits


class BatchJob:
    """Runs any job of a batch by its index; holds the batch's directories open.

    Programs have ``scratch`` as their working space, and ``watch`` is told of them. Raises :class:`StorageUnavailable`
    when the batch's directories are not there.
    """

    def __init__(
        self,
        spec: BatchSpec,
        root: Path,
        slot: str,
        durability: str,
        *,
        scratch: Path | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.spec = spec
        self.outputs = spec.outputs
        self.limits = limits_of(spec)
        #: From the second attempt on, :meth:`store` compares with what is there; and which jobs differed.
        self.attempt = 1
        self.differing: list[int] = []
        self._place = outputs.directory(root, spec)
        #: Runs a job: index and attempt → CSV and numeric outputs.
        self._jobs: Jobs | _Refused
        try:
            self._jobs = Jobs(spec, outputs.directory(root, spec), scratch=scratch, watch=watch)
        except InvalidInput as error:
            if not spec.program or spec.version:
                raise
            self._jobs = _Refused(error)
        self.compute = self._jobs.result
        try:
            self._writer = results.writer(root, spec, slot, durability)
        except OSError as error:
            self._jobs.close()
            raise _unavailable(error) from error

    @property
    def usage(self) -> Usage | None:
        """What the last job's program used; None when the jobs run in this process."""
        programs = self._jobs.programs
        return programs.usage if programs is not None else None

    def fits(self) -> bool:
        """Whether the program is still what it was when this was made; a function is what was read then."""
        if not self.spec.program:
            return True
        try:
            registry.of(self.spec)
        except InvalidInput:
            return isinstance(self._jobs, _Refused)
        return not isinstance(self._jobs, _Refused)

    def store(self, index: int, data: bytes) -> None:
        """Write a job's CSV. Raises :class:`StorageUnavailable`."""
        try:
            if self.attempt > 1 and results.differs(self._place, self.spec, index, data):
                self.differing.append(index)
            self._writer.write(index, data)
        except OSError as error:
            raise _unavailable(error) from error

    def run(self, index: int) -> tuple[float, ...]:
        """Run job ``index`` and write its CSV; returns its numeric outputs."""
        data, values = self.compute(index)
        self.store(index, data)
        return values

    def sync(self) -> None:
        """Make what was written durable. Raises :class:`StorageUnavailable`."""
        try:
            self._writer.sync()
        except OSError as error:
            raise _unavailable(error) from error

    def try_sync(self) -> bool:
        """As :meth:`sync`; whether it could be done."""
        try:
            self.sync()
        except StorageUnavailable:
            return False
        return True

    def refresh(self) -> None:
        """Find what another process has written through a copy of this object. Raises :class:`StorageUnavailable`."""
        try:
            self._writer.refresh()
        except OSError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Close the batch's directories."""
        self._writer.close()
        self._jobs.close()


class _Refused:
    """The jobs of a program that is not what was submitted. Nothing keeps it from other workers, so its jobs fail."""

    def __init__(self, error: InvalidInput) -> None:
        self._error = error
        self.programs = self
        self.usage = Usage()

    def result(self, _index: int, _attempt: int = 1) -> tuple[bytes, tuple[float, ...]]:
        """The job fails and says why."""
        raise ProgramFailed(self._error.message, exit_code=NOT_EXECUTABLE)

    def close(self) -> None:
        """Nothing is open."""


def limits_of(spec: BatchSpec) -> Limits:
    """The limits of a batch's jobs."""
    return Limits(spec.time_limit_seconds, spec.memory_limit_mb, spec.retries, spec.retry_delay_seconds)


def _unavailable(error: OSError) -> StorageUnavailable:
    where = f": {error.filename}" if error.filename else ""
    return StorageUnavailable(f"The outputs directory cannot be written: {error.strerror}{where}", field="OUTPUT_DIR")
