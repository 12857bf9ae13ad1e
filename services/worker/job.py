"""The jobs of one batch in one slot: random stream, simulation, CSV."""

from pathlib import Path

from common.batch import BatchSpec
from common.errors import StorageUnavailable
from common.jobs import Jobs
from common.outputs import JobWriter


class BatchJob:
    """Runs any job of a batch by its index; holds the batch's directories open.

    Raises :class:`StorageUnavailable` when the batch's directories are not there.
    """

    outputs = Jobs.outputs

    def __init__(self, spec: BatchSpec, root: Path, slot: str, durability: str) -> None:
        self.spec = spec
        self._result = Jobs(spec).result
        try:
            self._writer = JobWriter(root, spec, slot, durability)
        except OSError as error:
            raise _unavailable(error) from error

    def run(self, index: int) -> tuple[float, ...]:
        """Run job ``index`` and write its CSV; returns its numeric outputs."""
        data, values = self._result(index)
        try:
            self._writer.write(index, data)
        except OSError as error:
            raise _unavailable(error) from error
        return values

    def sync(self) -> None:
        """Make what was written durable. Raises :class:`StorageUnavailable`."""
        try:
            self._writer.sync()
        except OSError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Close the batch's directories."""
        self._writer.close()


def _unavailable(error: OSError) -> StorageUnavailable:
    where = f": {error.filename}" if error.filename else ""
    return StorageUnavailable(f"The outputs directory cannot be written: {error.strerror}{where}", field="OUTPUT_DIR")
