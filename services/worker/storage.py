"""Whether the volume takes a batch's files again, after it had refused some."""

import contextlib
from pathlib import Path

import structlog

from common import outputs
from common.errors import StorageUnavailable
from common.ledger import Connection, batches, control
from services.worker.board import Board
from services.worker.retrying import persist

log = structlog.get_logger()


def accepts(connection: Connection, board: Board, root: Path, batch: int) -> bool:
    """Probe it; puts the batch's directories right, or ends a batch that lost them to another.

    Waits while Redis is away, and raises :class:`services.worker.retrying.Draining` when the worker shuts down then.
    """
    view = persist(board, lambda: batches.view(connection, batch))
    try:
        outputs.probe(root)
        if view.ended:
            return True
        found = outputs.read_spec(outputs.directory(root, view.spec))
        if found is not None and found.id != batch:
            log.error("batch.superseded", batch=batch, by=found.id)
            persist(board, lambda: control.cancel(connection, batch))
        else:
            outputs.prepare(root, view.spec)
            if persist(board, lambda: batches.view(connection, batch)).ended:
                # We stood still meanwhile. Who finishes it removes the directory, or has done so: then ours is empty.
                with contextlib.suppress(OSError):
                    outputs.staging(root, view.spec).rmdir()
    except StorageUnavailable:
        return False
    return True
