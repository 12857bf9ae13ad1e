"""Submit the start-up batch, once per life of the container, as soon as Redis and the volume are there."""

import socket
import time

import structlog

from common import queue
from common.errors import BatchSimError, InvalidInput
from common.ledger import Connection
from common.recovery import recover
from common.settings import Settings
from common.submission import Submitter

log = structlog.get_logger()

RETRY_SECONDS = 1.0


def submit_startup_batch(settings: Settings) -> None:
    """Try until it is submitted. A container keeps its host name over a restart, and a new one has another."""
    connection, app = Connection(settings.broker_url), queue.make_app(settings.broker_url)
    submitter = Submitter(connection, app, settings.output_dir)
    while True:
        try:
            recover(connection, app, settings.output_dir)
            submitter.start_up(settings, socket.gethostname())
            return
        except InvalidInput:
            raise
        except BatchSimError as error:
            log.warning("startup.waits", reason=error.message)
            time.sleep(RETRY_SECONDS)
