"""Start the API: ``python -m services.api``. Submits the start-up batch, unless told not to, and becomes gunicorn."""

import argparse
import os
import sys

from common import logs, outputs, settings
from common.errors import BatchSimError, SettingsError
from common.settings import Settings
from services.api.startup import submit_startup_batch

GUNICORN_WORKERS = 2
GUNICORN_THREADS = 32


def main(arguments: list[str] | None = None) -> int:
    """Check the settings, then become gunicorn; returns only when a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m services.api")
    parser.add_argument("--no-startup-batch", action="store_true", help="only serve")
    parser.add_argument("--workers", type=int, default=GUNICORN_WORKERS, help="gunicorn processes")
    options = parser.parse_args(arguments)
    try:
        configured = settings.load()
        if not configured.redis_url:
            raise SettingsError("REDIS_URL is empty: the API needs the Redis that its workers use")
        if not options.no_startup_batch:
            outputs.probe(configured.output_dir)
            _start(configured)
    except BatchSimError as error:
        print(f"batchsim api: {error.message}", file=sys.stderr)  # noqa: T201 - before logging is set up
        return 2
    command = [sys.executable, "-m", "gunicorn", *gunicorn_arguments(configured, options.workers)]
    return os.execv(sys.executable, command)  # noqa: S606 - no shell is the point


def gunicorn_arguments(configured: Settings, workers: int) -> list[str]:
    """Gunicorn's command line."""
    return [
        "services.api.app:serve_app()",
        f"--bind={configured.api_host}:{configured.api_port}",
        f"--workers={workers}",
        "--worker-class=gthread",
        f"--threads={GUNICORN_THREADS}",
        "--worker-tmp-dir=/dev/shm" if os.path.isdir("/dev/shm") else "--worker-tmp-dir=/tmp",  # noqa: S108, PTH112
        "--no-control-socket",
        "--graceful-timeout=5",
        "--log-level=warning",
        "--name=batchsim-api",
    ]


def _start(configured: Settings) -> None:
    """Hold the outputs directory for as long as the API lives, and submit the start-up batch beside it."""
    holder = outputs.exclusive(configured.output_dir, ".owner.lock")
    descriptor = holder.__enter__()
    os.set_inheritable(descriptor, True)
    # A process of its own, so that it can wait for Redis without threads in what gunicorn forks from.
    if os.fork() == 0:
        logs.configure(configured, "startup")
        submit_startup_batch(configured)
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
