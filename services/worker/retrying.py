"""Trying again while Redis or the volume is away, until the worker shuts down."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from common.errors import BrokerUnavailable
from services.worker.board import Board

T = TypeVar("T")
log = structlog.get_logger()

_LONGEST_PAUSE_SECONDS = 2.0


class Draining(Exception):
    """The worker is shutting down and Redis or the volume does not answer: the lease is left to run out."""


class Pause:
    """Growing pauses between tries; raises :class:`Draining` when the worker shuts down."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._seconds = 0.1

    def once(self) -> None:
        """Wait before the next try."""
        if self._board.draining:
            raise Draining
        time.sleep(self._seconds)
        self._seconds = min(self._seconds * 2, _LONGEST_PAUSE_SECONDS)


def persist(board: Board, action: Callable[[], T]) -> T:
    """Do it, however long Redis is away; only a shutdown ends the wait, with :class:`Draining`."""
    pause = Pause(board)
    while True:
        try:
            return action()
        except BrokerUnavailable as error:
            log.warning("broker.unavailable", error=error.message)
            pause.once()
