"""The keeper goes on with its other steps when one of them fails."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import queue
from common.ledger import Connection, workers
from common.settings import Settings
from services.worker.board import Board
from services.worker.keeper import SUSPENDED_SECONDS, Keeper
from tests.conftest import RedisServer
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


def test_a_redis_that_hangs_is_told(own_redis: RedisServer, root: Path, tmp_path: Path) -> None:
    """In the status, with each second that it does not answer; nothing ends meanwhile, and afterwards all is well."""
    board = Board.create(tmp_path / "board", 1)
    settings = Settings(redis_url=own_redis.url, output_dir=root)
    status = tmp_path / "status.json"
    keeper = Keeper(settings, queue.make_app(own_redis.url), board, "w", status)
    keeper.start()

    def away() -> float:
        return float(json.loads(status.read_text())["out_of_touch_seconds"])

    wait_for(status.exists, 10, "the status")
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        # Longer than what is taken for a suspension of our own.
        wait_for(lambda: away() > SUSPENDED_SECONDS + 2, 40, "the hanging Redis", status.read_text)
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    wait_for(lambda: away() < 5, 10, "the answer", status.read_text)
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
