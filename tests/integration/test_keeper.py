"""The keeper goes on with its other steps when one of them fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import queue
from common.ledger import Connection, workers
from common.settings import Settings
from services.worker.board import Board
from services.worker.keeper import Keeper
from tests.support import wait_for


@pytest.fixture
def keeper(connection: Connection, redis_url: str, root: Path, tmp_path: Path) -> Iterator[Keeper]:
    """One whose status file has no directory to go to."""
    board = Board.create(tmp_path / "board", 1)
    settings = Settings(redis_url=redis_url, output_dir=root)
    keeper = Keeper(settings, queue.make_app(redis_url), board, "w", tmp_path / "gone" / "status.json")
    yield keeper
    keeper.stop()
    board.close()


def test_a_step_that_fails_stops_no_other(
    keeper: Keeper, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a volume that is away, nor a defect; and once it is back, so is the step."""
    monkeypatch.setattr(keeper, "_offer_dead", lambda _now: [][1])
    keeper.start()
    wait_for(lambda: workers.alive(connection), 10, "a heartbeat")
    (tmp_path / "gone").mkdir()
    wait_for(lambda: (tmp_path / "gone" / "status.json").exists(), 10, "the status")
