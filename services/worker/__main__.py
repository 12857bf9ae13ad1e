"""Start a worker: ``python -m services.worker [--slots N]``; ``python -m services.worker health`` checks one."""

import argparse
import logging
import os
import secrets
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.platforms import SecurityWarning

from common import logs, outputs, queue, settings
from common.errors import BatchSimError, SettingsError
from common.settings import Settings
from services.worker import health
from services.worker.board import Board
from services.worker.keeper import Keeper, pulse
from services.worker.tasks import BOARD_VARIABLE, NAME_VARIABLE

log = structlog.get_logger()

# How soon a slot whose process died can have another ticket; a look costs some 10 µs.
MAINTAIN_SECONDS = 0.05


def main(arguments: list[str] | None = None) -> int:
    """Run a worker until it is told to stop; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.worker")
    parser.add_argument("verb", nargs="?", choices=("run", "health"), default="run")
    parser.add_argument("--slots", type=int, help="worker processes (default: WORKER_CONCURRENCY)")
    parser.add_argument("--events", action="store_true", help="send the events that Flower shows")
    options = parser.parse_args(arguments)
    if options.verb == "health":
        return health.check()
    try:
        configured = settings.load()
        if not configured.redis_url:
            raise SettingsError("REDIS_URL is empty: a worker needs the Redis that the API uses")
        outputs.probe(configured.output_dir)
    except BatchSimError as error:
        print(f"batchsim worker: {error.message}", file=sys.stderr)  # noqa: T201 - before logging is set up
        return 2
    return run(configured, options.slots or configured.worker_concurrency, events=options.events)


def run(configured: Settings, slots: int, *, events: bool) -> int:
    """Run a worker with ``slots`` processes until it is told to stop."""
    logs.configure(configured, "worker")
    # Celery warns root because of pickled messages; this queue takes JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    name = f"{socket.gethostname()}-{secrets.token_hex(2)}"
    with tempfile.TemporaryDirectory(prefix="batchsim-worker-") as private:
        board = Board.create(Path(private) / "board", slots)
        os.environ.update({BOARD_VARIABLE: f"{board.path}:{slots}", NAME_VARIABLE: name, **configured.environment()})
        app = queue.make_app(configured.broker_url)
        app.conf.imports = ("services.worker.tasks",)
        keeper = Keeper(configured, app, board, name, health.status_path())
        app.steps["consumer"].add(_pulse_step(keeper, board))
        # What became of a slot's death is logged by aftermath.py, in one line.
        logging.getLogger("celery.worker.request").addFilter(_tells_no_lost_worker)
        signals.setup_logging.connect(lambda **_: None, weak=False)
        signals.worker_shutting_down.connect(lambda **_: keeper.drain(), weak=False)
        signals.worker_ready.connect(lambda **_: _ready(keeper, name, slots), weak=False)
        worker = app.Worker(
            hostname=f"worker@{name}",
            pool="prefork",
            concurrency=slots,
            quiet=True,
            task_events=events,
            without_gossip=True,
            without_mingle=True,
            optimization="fair",
            queues=queue.names(configured.worker_partitions.split(",")),
        )
        try:
            worker.start()
        finally:
            keeper.stop()
        return int(worker.exitcode or 0)


def _ready(keeper: Keeper, name: str, slots: int) -> None:
    # Started once the pool is forked, so that no child inherits a lock that this thread holds.
    keeper.start()
    log.info("worker.ready", worker=name, slots=slots)


def _tells_no_lost_worker(record: logging.LogRecord) -> bool:
    return "WorkerLostError" not in record.getMessage()


def _note_exits(pool: Any, board: Board) -> None:
    """Let the pool tell the board how a slot ended, before its successor starts and asks."""
    before = pool.on_process_down

    def on_process_down(process: Any) -> None:
        board.note_exit(process.index, process.exitcode or 0)
        before(process)

    pool.on_process_down = on_process_down


def _pulse_step(keeper: Keeper, board: Board) -> type[bootsteps.StartStopStep]:
    class Pulse(bootsteps.StartStopStep):
        """Shows that Celery's loop turns, and lets it replace dead children sooner than every 5 s."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, c: Any) -> None:
            c.timer.call_repeatedly(0.25, pulse(keeper))
            c.timer.call_repeatedly(MAINTAIN_SECONDS, c.pool.maintain_pool)
            # Only once the loop turns: the pool makes its handlers anew when it joins it.
            c.timer.call_after(0.0, _note_exits, (c.pool._pool, board))

    return Pulse


if __name__ == "__main__":
    sys.exit(main())
