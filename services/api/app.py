"""The Flask app."""

from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from common import logs, queue
from common import settings as settings_module
from common.control import Controller
from common.ledger import Connection
from common.settings import Settings
from common.simulations import registry
from common.submission import Submitter
from common.verification import Verifier
from services.api import (
    batches,
    control,
    estimates,
    files,
    form,
    health,
    jobs,
    page,
    problems,
    security,
    simulations,
    verification,
)
from services.api.state import ApiState
from services.api.stores import Stores

# Longer than a pause of Redis that a user would not notice, shorter than a user's patience.
REDIS_TIMEOUT_SECONDS = 2.0


class StrictJson(DefaultJSONProvider):
    """JSON that everybody can read: NaN or infinity in an answer is a defect of ours, and no answer."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """As the base class, without its own ``NaN`` and ``Infinity``."""
        return super().dumps(obj, **{"allow_nan": False, **kwargs})


def serve_app() -> Flask:
    """What gunicorn serves: the app, and its log lines as the settings say."""
    configured = settings_module.load()
    logs.configure(configured, "api")
    return create_app(configured)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the app; opens no connection. Without settings they are read from the environment."""
    configured = settings or settings_module.load()
    registry.use(configured.simulations_dir)
    connection = Connection(configured.broker_url, timeout_seconds=REDIS_TIMEOUT_SECONDS, retries=1)
    courier = queue.make_app(configured.broker_url)
    submitter = Submitter(connection, courier, configured.output_dir)
    controller = Controller(connection, courier, configured.output_dir)
    verifier = Verifier(connection, courier)

    app = Flask(__name__)
    app.json = StrictJson(app)
    app.config["MAX_CONTENT_LENGTH"] = 1_000_000
    app.extensions["batchsim"] = ApiState(configured, connection, submitter, controller, verifier, Stores())
    app.extensions["health"] = health.Health(configured)
    problems.register(app)
    security.register(app, configured.api_token.get_secret_value())
    for module in (health, jobs, batches, control, estimates, verification, simulations, files, form, page):
        app.register_blueprint(module.blueprint)
    return app
