"""The worker's health check: proves that it consumes, not only that it lives.

The keeper writes what it sees each round: since when Redis has not answered, whether Celery's loop turns, and for how
long slots have been idle beside a queue that holds tickets. The check reads that, so it costs no connection and no
second Celery process.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

STATUS_VARIABLE = "BATCHSIM_WORKER_STATUS"
STALE_SECONDS = 15.0
NOT_CONSUMING_SECONDS = 10.0


def status_path() -> Path:
    """Where the keeper writes and the check reads."""
    return Path(os.environ.get(STATUS_VARIABLE) or Path(tempfile.gettempdir()) / f"batchsim-worker-{os.getuid()}.json")


def check() -> int:
    """Exit code 0 when the worker consumes; 1, with the reason, when it does not."""
    reason = problem(status_path(), time.time())
    print(reason or "ok", file=sys.stderr if reason else sys.stdout)
    return 1 if reason else 0


def problem(path: Path, now: float) -> str:
    """What is wrong with the worker that writes to ``path``, or ""."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        names = ("at", "out_of_touch_seconds", "loop_seconds", "not_consuming_seconds")
        at, away, loop, idle = (float(status[name]) for name in names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"no status: {error}"
    if now - at > STALE_SECONDS:
        return f"the last status is {now - at:.0f} s old: the worker hangs"
    if away > STALE_SECONDS:
        return f"Redis has not answered for {away:.0f} s"
    if loop > STALE_SECONDS:
        return f"Celery's loop has stood still for {loop:.0f} s"
    if idle > NOT_CONSUMING_SECONDS:
        return f"slots have been idle beside a full queue for {idle:.0f} s"
    return ""
