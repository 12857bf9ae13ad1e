"""What ``run`` and ``serve`` have in common: the checks before anything starts, then Redis and the worker."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import outputs
from common.errors import BatchSimError, BrokerUnavailable, Conflict, SettingsError, StorageUnavailable
from common.settings import Settings, without_password
from services.local import redis_server
from services.local.supervisor import Supervisor

OWNER_LOCK = ".owner.lock"
EXIT_FAILED = 1


@dataclass(frozen=True)
class Embedded:
    """A running embedded form: its settings, with the URL of its Redis, and its supervisor."""

    settings: Settings
    supervisor: Supervisor
    # The server is ours alone and thrown away with the directory, so nobody needs a farewell.
    private: bool

    def environment(self) -> dict[str, str]:
        """What its processes get: the settings, and the log format of our terminal, since theirs is a pipe."""
        given = self.settings.environment()
        if self.settings.log_format == "auto" and sys.stderr.isatty():
            given["LOG_FORMAT"] = "console"
        return {**given, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


def check_outputs(root: Path) -> None:
    """Make the outputs directory if it is missing, and see that it can be written. Raises :class:`SettingsError`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        outputs.probe(root)
    except (OSError, StorageUnavailable) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise SettingsError(f"OUTPUT_DIR={root}: {reason}") from None


def check_port(host: str, port: int, name: str) -> None:
    """See that a port is free. Raises :class:`SettingsError` that names the variable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"{name}={port}: cannot listen on {host}: {error.strerror}; choose another port"
            ) from None


@contextmanager
def embedded(settings: Settings, show: Callable[[str], None], *, events: bool) -> Iterator[Embedded]:
    """Start Redis, unless REDIS_URL names one, and a worker with ``settings.workers`` slots; stop both at the end.

    Raises :class:`SettingsError` before anything was started.
    """
    check_outputs(settings.output_dir)
    binary = "" if settings.redis_url else redis_server.find_binary()
    if binary:
        redis_server.check_version(binary)
    else:
        _check_answers(settings)
    with _owner(settings.output_dir), Supervisor(show) as supervisor:
        server = None
        if binary:
            server = supervisor.start("Redis", redis_server.command(binary, supervisor.directory), quiet=True)
            url = f"unix://{redis_server.socket_path(supervisor.directory)}"
            settings = settings.model_copy(update={"redis_url": url})
        running = Embedded(settings, supervisor, private=bool(binary))
        # The worker imports for a second; Redis, and whatever the caller does first, are ready before it.
        arguments = ["--slots", str(settings.workers), *(["--events"] if events else [])]
        supervisor.start("worker", [sys.executable, "-m", "services.worker", *arguments], running.environment())
        if server is not None:
            redis_server.wait_until_ready(supervisor.directory, server)
        yield running


@contextmanager
def _owner(root: Path) -> Iterator[None]:
    try:
        with outputs.exclusive(root, OWNER_LOCK):
            yield
    except Conflict as error:
        raise SettingsError(f"OUTPUT_DIR={root}: {error.message}") from None


def _check_answers(settings: Settings) -> None:
    from common.ledger import Connection

    try:
        Connection(settings.broker_url, timeout_seconds=2.0, retries=0).command("PING")
    except (BrokerUnavailable, ValueError) as error:
        text = error.message if isinstance(error, BatchSimError) else str(error)
        raise SettingsError(f"REDIS_URL={without_password(settings.redis_url)}: {text}") from None
