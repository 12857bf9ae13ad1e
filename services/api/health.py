"""``GET /health``: looks, rather than remembers, and answers within a second even while Redis or the disk hangs."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

from flask import Blueprint, current_app
from flask.typing import ResponseReturnValue

from common import outputs
from common.errors import BatchSimError
from common.ledger import Connection, workers
from common.settings import Settings

blueprint = Blueprint("health", __name__)

REDIS_TIMEOUT_SECONDS = 0.4
ANSWER_SECONDS = 0.8


class Check:
    """One look at something that may hang: in a thread of its own, and never more than one at a time."""

    def __init__(self, name: str, look: Callable[[], dict[str, Any]]) -> None:
        self._name = name
        self._look = look
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"health-{name}")
        self._pending: Future[dict[str, Any]] | None = None

    def start(self) -> Future[dict[str, Any]]:
        """The look that is under way, or a new one."""
        if self._pending is None or self._pending.done():
            self._pending = self._executor.submit(self._look)
        return self._pending

    def answer(self, future: Future[dict[str, Any]], deadline: float) -> tuple[dict[str, Any], str]:
        """What was seen, and what is wrong or ""."""
        try:
            return future.result(timeout=max(0.0, deadline - time.monotonic())), ""
        except FutureTimeout:
            return {}, f"The {self._name} did not answer within {ANSWER_SECONDS} s."
        except BatchSimError as error:
            return {}, error.message
        except OSError as error:
            return {}, f"The {self._name} cannot be looked at: {error.strerror}."


class Health:
    """The checks of one API process."""

    def __init__(self, settings: Settings) -> None:
        self._connection = Connection(settings.broker_url, timeout_seconds=REDIS_TIMEOUT_SECONDS, retries=0)
        self._root = settings.output_dir
        self._least_free = settings.min_free_mb * 1_000_000
        self._broker = Check("broker", self._look_at_broker)
        self._disk = Check("jobs directory", self._look_at_disk)

    def report(self) -> dict[str, Any]:
        """What health says; ``status`` is "ok" or "error", and ``problems`` says why."""
        deadline = time.monotonic() + ANSWER_SECONDS
        looks = [(check, check.start()) for check in (self._broker, self._disk)]
        (broker, broker_problem), (disk, disk_problem) = (check.answer(look, deadline) for check, look in looks)
        problems = [text for text in (broker_problem, disk_problem, disk.pop("problem", "")) if text]
        return {
            "status": "error" if problems else "ok",
            "jobs_dir": not disk_problem,
            "broker": not broker_problem,
            "workers": broker.pop("workers", 0),
            **broker,
            **disk,
            "problems": problems,
        }

    def _look_at_broker(self) -> dict[str, Any]:
        begin = time.perf_counter()
        self._connection.command("PING")
        milliseconds = (time.perf_counter() - begin) * 1000
        alive = workers.alive(self._connection)
        return {
            "workers": len(alive),
            "slots": sum(info.slots for info in alive),
            "busy_slots": sum(info.busy for info in alive),
            "broker_ping_ms": round(milliseconds, 2),
        }

    def _look_at_disk(self) -> dict[str, Any]:
        outputs.probe(self._root)
        free = outputs.free_bytes(self._root)
        seen: dict[str, Any] = {"free_mb": free // 1_000_000}
        if free < self._least_free:
            seen["problem"] = (
                f"The disk of {Path(self._root).name}/ is nearly full: {free // 1_000_000} MB free, "
                f"MIN_FREE_MB={self._least_free // 1_000_000}."
            )
        return seen


@blueprint.get("/health")
def health() -> ResponseReturnValue:
    """Whether the system can take and run jobs: 200, or 503 with what is wrong."""
    report = current_app.extensions["health"].report()
    return report, 200 if report["status"] == "ok" else 503


@blueprint.get("/health/live")
def live() -> ResponseReturnValue:
    """Whether this process serves; says nothing of the others."""
    return {"status": "ok"}
