"""``GET /simulations``: what can be run, with its parameters as JSON Schema."""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from common.simulations import registry

blueprint = Blueprint("simulations", __name__)


@blueprint.get("/simulations")
def index() -> ResponseReturnValue:
    """Every simulation; and the files and tables that cannot be used, with tracebacks and reasons."""
    return registry.everything().to_dict()
