"""The batches whose directories a slot keeps open, so that the next range of one need not open them again."""

from common.batch import BatchSpec
from common.ledger import Connection, batches
from common.settings import Settings
from services.worker.board import Board, Recorder
from services.worker.job import BatchJob
from services.worker.retrying import persist

# Directories that a slot keeps open, one batch each.
MOST_OPEN = 8


class OpenBatches:
    """Opens batches when they are asked for; the one that was opened first is closed first."""

    def __init__(
        self, connection: Connection, settings: Settings, board: Board, recorder: Recorder, slot: str, index: int
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._board = board
        self._recorder = recorder
        self._slot = slot
        self._index = index
        self._jobs: dict[int, BatchJob] = {}

    def get(self, batch: int) -> BatchJob | None:
        """The batch's jobs, if it is open."""
        return self._jobs.get(batch)

    def spec(self, batch: int) -> BatchSpec:
        """The batch's specification; also while its directory cannot be opened."""
        job = self._jobs.get(batch)
        return job.spec if job else persist(self._board, lambda: batches.view(self._connection, batch)).spec

    def fitting(self, batch: int) -> BatchJob:
        """The batch's jobs, opened anew if what they run has changed meanwhile.

        Raises :class:`InvalidInput` when this process cannot run them, and :class:`StorageUnavailable`.
        """
        if not self._open(batch).fits():
            self.forget(batch)
        return self._open(batch)

    def forget(self, batch: int) -> None:
        """Close the batch, if it is open."""
        job = self._jobs.pop(batch, None)
        if job is not None:
            job.close()

    def _open(self, batch: int) -> BatchJob:
        if batch not in self._jobs:
            spec = self.spec(batch)
            if len(self._jobs) >= MOST_OPEN:
                self.forget(next(iter(self._jobs)))
            self._jobs[batch] = BatchJob(
                spec,
                self._settings.output_dir,
                self._slot.replace("/", "-"),
                self._settings.durability,
                # Goes with the worker's own directory, whatever becomes of this process.
                scratch=self._board.path.with_name(f"jobs-{self._index % self._board.slots}"),
                watch=self._recorder,
            )
        return self._jobs[batch]
