"""What a slot does about a batch's directories when it could not write there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import outputs
from common.ledger import Connection, batches
from common.submission import Submitter
from services.worker import storage
from services.worker.board import Board
from services.worker.finish import finish
from tests.integration.finish_support import run


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """A worker's, which goes on."""
    made = Board.create(tmp_path / "board", 1)
    yield made
    made.close()


def test_directories_that_are_gone_are_made_again(
    submitter: Submitter, connection: Connection, board: Board, root: Path
) -> None:
    """While the batch runs."""
    spec = submitter.submit(5, 1)
    outputs.remove_staging(root, spec)
    assert storage.accepts(connection, board, root, spec.id)
    assert outputs.staging(root, spec).is_dir()


@pytest.mark.parametrize(
    "told", [True, False], ids=["and the ledger knows it", "by one who has yet to tell the ledger"]
)
def test_a_batch_that_is_closed_meanwhile_stays_closed(
    submitter: Submitter,
    connection: Connection,
    board: Board,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: bool,
) -> None:
    """By others, while this slot stood still between its question and its answer."""
    spec = submitter.submit(100, 1)
    probe = outputs.probe

    def late(place: Path) -> None:
        probe(place)
        run(connection, spec.id)
        if told:
            assert finish(connection, root, spec.id, "other")
        else:
            outputs.remove_staging(root, spec)

    monkeypatch.setattr(outputs, "probe", late)
    assert storage.accepts(connection, board, root, spec.id)
    assert bool(batches.view(connection, spec.id).finished) is told
    assert not outputs.staging(root, spec).exists()
