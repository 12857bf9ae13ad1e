"""A batch's files while its jobs are made to run again: open before the ledger moves, and as they were if it does not.

The summary says that a batch is finished, also to a Redis that was emptied. It is set aside before the ledger moves,
and dropped once it has: so at no moment is a batch that runs again taken for a finished one. Whether the ledger has
moved cannot be known while Redis does not answer; then the summary stays aside, for whoever acts on the batch next.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common import outputs
from common.batch import BatchSpec, JobState, Reason
from common.errors import BatchSimError, BrokerUnavailable, StorageUnavailable
from common.ledger import Connection, batches, table
from common.ledger.control import Run
from common.notes import Interval, Notes


class Reopening:
    """The reopening of one batch, whose files lie in ``place``. Its methods raise :class:`StorageUnavailable`."""

    def __init__(self, connection: Connection, root: Path, spec: BatchSpec, place: Path, notes: Notes) -> None:
        self._connection = connection
        self._root = root
        self._spec = spec
        self._notes = notes
        self._place = place
        self._summary = place / outputs.SUMMARY_NAME
        # With the batch's number: the next start-up batch has the same directory.
        self._aside = place / f".summary-{spec.id}.json"

    @contextmanager
    def of(self, runs: Sequence[Run]) -> Iterator[None]:
        """Let slots write again while the ledger reopens these runs; an error of that puts right what it can."""
        try:
            self._open([(first, count) for first, count, *_ in runs])
            yield
        except BatchSimError:
            with contextlib.suppress(BrokerUnavailable, StorageUnavailable):
                self.put_right()
            raise
        with _translated(self._place):
            self._aside.unlink(missing_ok=True)

    def put_right_if_left(self) -> None:
        """Finish what an earlier reopening left undone, if there was one. Raises :class:`BrokerUnavailable` too."""
        if self._aside.exists():
            self.put_right()

    def put_right(self) -> None:
        """Let the files say what the ledger says, which may have been reopened, in parts, or not at all."""
        view = batches.view(self._connection, self._spec.id)
        closed = cancelled_in(self._connection, self._spec.id)
        if closed:
            self._notes.cancel(closed, closed)
        with _translated(self._place):
            # It is of the end that it tells of. Jobs that ran again gave the batch another one.
            stays = view.ended is not None and _ended_in(self._aside) in (None, view.ended)
            if stays and self._aside.exists() and not self._summary.exists():
                self._aside.replace(self._summary)
            self._aside.unlink(missing_ok=True)
            if view.finished:
                outputs.remove_staging(self._root, self._spec)
            elif view.ended:
                # Somebody writes the results files. Is he at work in there it is not empty, and is his to remove.
                with contextlib.suppress(OSError):
                    outputs.staging(self._root, self._spec).rmdir()

    def _open(self, jobs: Sequence[Interval]) -> None:
        with _translated(self._place):
            outputs.staging(self._root, self._spec).mkdir(exist_ok=True)
            self._notes.run_again(jobs)
            with contextlib.suppress(FileNotFoundError):
                self._summary.replace(self._aside)


def cancelled_in(connection: Connection, batch_id: int) -> list[Interval]:
    """The jobs that people cancelled, by the ledger: none of them has a result, whatever lies on the volume."""
    return [
        (each.first, each.count)
        for each in table.closed(connection, batch_id)
        if each.state is JobState.CANCELLED and each.reason is Reason.NONE
    ]


def _ended_in(summary: Path) -> float | None:
    """When the batch had ended by this summary; None when it cannot be read."""
    try:
        return float(json.loads(summary.read_text(encoding="utf-8"))["ended"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextmanager
def _translated(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"{place}: {error.strerror}", field="OUTPUT_DIR") from error
