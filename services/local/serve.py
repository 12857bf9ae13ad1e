"""``batchsim serve``: the embedded form as a service: API, page, workers and Flower, until it is told to stop."""

import secrets
import sys
import time

from pydantic import SecretStr

from common import logs
from common.errors import BatchSimError, Terminated
from common.settings import Settings
from services.local.embedded import Embedded, check_port, embedded
from services.local.supervisor import ProcessDied

WATCH_SECONDS = 0.2
STOP_SECONDS = 4.0


def serve(settings: Settings) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code.

    Raises :class:`common.errors.SettingsError` before anything was started.
    """
    check_port(settings.api_host, settings.api_port, "API_PORT")
    check_port(settings.api_host, settings.flower_port, "FLOWER_PORT")
    generated = "" if settings.flower_password.get_secret_value() else secrets.token_urlsafe(9)
    if generated:
        settings = settings.model_copy(update={"flower_password": SecretStr(generated)})
    logs.configure(settings, "serve")
    try:
        with embedded(settings, _show, events=True) as running:
            _start(running)
            _announce(settings, generated)
            try:
                _submit_and_watch(running)
            except (KeyboardInterrupt, Terminated):
                _show("batchsim: stopping")
                running.supervisor.stop(patience_seconds=STOP_SECONDS)
    except ProcessDied as error:
        _show(f"batchsim: {error.message}")
        return 1
    return 0


def _start(running: Embedded) -> None:
    api = [sys.executable, "-m", "services.api", "--no-startup-batch", "--workers", "1"]
    running.supervisor.start("API", api, running.environment())
    flower = [sys.executable, "-m", "services.flower", "--state", str(running.supervisor.directory / "flower")]
    running.supervisor.start("Flower", flower, running.environment(), quiet=True)


def _announce(settings: Settings, generated_password: str) -> None:
    host = "localhost" if settings.api_host in ("127.0.0.1", "0.0.0.0") else settings.api_host  # noqa: S104 - a comparison
    _show(f"batchsim: page and API at http://{host}:{settings.api_port}/ (Ctrl-C stops)")
    # Shown once, on the terminal, because nobody has set one.
    password = f", password {generated_password}" if generated_password else ""
    _show(f"batchsim: Flower at http://{host}:{settings.flower_port}/, user {settings.flower_user}{password}")


def _submit_and_watch(running: Embedded) -> None:
    from common import queue
    from common.ledger import Connection
    from common.recovery import recover
    from common.submission import Submitter

    settings = running.settings
    connection, app = Connection(settings.broker_url), queue.make_app(settings.broker_url)
    submitter = Submitter(connection, app, settings.output_dir, slots=settings.workers)
    key, submitted = f"serve-{time.time_ns()}", False
    while True:
        running.supervisor.watch()
        if not submitted:
            try:
                recover(connection, app, settings.output_dir)
                submitter.start_up(settings, key)
                submitted = True
            except BatchSimError as error:
                _show(f"batchsim: the start-up batch waits: {error.message}")
        time.sleep(WATCH_SECONDS)


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal
