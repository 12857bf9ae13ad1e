"""The Celery tasks: each only hands its arguments to the slot of its process."""

import os
from pathlib import Path
from typing import Any

from billiard import current_process
from celery import current_app, shared_task
from celery.signals import worker_process_init

from common import logs, settings
from common.ledger.verifications import Part
from common.queue import FINISH, RUN_RANGE, VERIFY
from services.worker.board import Board
from services.worker.slot import Slot

# How the main process tells its children where the board is and what the worker is called.
BOARD_VARIABLE = "BATCHSIM_BOARD"
NAME_VARIABLE = "BATCHSIM_WORKER"

_slot: list[Slot] = []


@worker_process_init.connect
def open_slot(**_: Any) -> None:
    """Make the slot of this process; Celery calls this in each new child."""
    configured = settings.load()
    logs.configure(configured, "worker")
    path, slots = os.environ[BOARD_VARIABLE].rsplit(":", 1)
    index = current_process().index
    _slot[:] = [
        Slot(
            configured,
            current_app._get_current_object(),
            Board(Path(path), int(slots)),
            os.environ[NAME_VARIABLE],
            index,
        )
    ]


@shared_task(name=RUN_RANGE, ignore_result=True)
def run_range(batch: int, token: str, partition: str) -> None:
    """Run the range that this ticket stands for."""
    _slot[0].serve(batch, token, partition)


@shared_task(name=FINISH, ignore_result=True)
def finish(batch: int) -> None:
    """Write the results files of a batch that has ended."""
    _slot[0].finish(batch)


@shared_task(name=VERIFY, ignore_result=True)
def verify(part: dict[str, Any]) -> None:
    """Run jobs that have completed again, and compare."""
    _slot[0].verify(Part(**{**part, "jobs": tuple(part["jobs"])}))
