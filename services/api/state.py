"""What the routes work with: made once per app by ``create_app``."""

from dataclasses import dataclass

from flask import current_app

from common.control import Controller
from common.ledger import Connection
from common.settings import Settings
from common.submission import Submitter
from common.verification import Verifier
from services.api.stores import Stores


@dataclass(frozen=True)
class ApiState:
    """Settings, the ledger's connection, and the way to submit."""

    settings: Settings
    connection: Connection
    submitter: Submitter
    controller: Controller
    verifier: Verifier
    stores: Stores


def state() -> ApiState:
    """The state of the app that serves this request."""
    found: ApiState = current_app.extensions["batchsim"]
    return found
