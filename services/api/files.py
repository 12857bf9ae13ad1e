"""``GET /outputs/…``: the CSV files, and nothing else of the disk."""

from flask import Blueprint, send_file
from flask.typing import ResponseReturnValue

from common import outputs
from services.api.state import state

blueprint = Blueprint("files", __name__)


@blueprint.get("/outputs/<name>")
def startup_file(name: str) -> ResponseReturnValue:
    """A CSV of the start-up batch: ``job_<index>.csv``."""
    path = outputs.find_job_file(state().settings.output_dir.resolve(), name)
    return send_file(path, mimetype="text/csv", download_name=name)


@blueprint.get("/outputs/<int:batch>/<name>")
def batch_file(batch: int, name: str) -> ResponseReturnValue:
    """A CSV of another batch, or of an older start-up batch."""
    path = outputs.find_job_file(state().settings.output_dir.resolve() / str(batch), name)
    return send_file(path, mimetype="text/csv", download_name=name)
