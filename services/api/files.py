"""``GET /outputs/…``: the jobs' CSVs and the results files, and nothing else of the disk."""

import io
from pathlib import Path

from flask import Blueprint, send_file
from flask.typing import ResponseReturnValue

from common import outputs
from common.errors import NotFound
from services.api.state import state

blueprint = Blueprint("files", __name__)


@blueprint.get("/outputs/<name>")
def startup_file(name: str) -> ResponseReturnValue:
    """A file of the start-up batch: ``job_<index>.csv``, ``results.csv`` and the like."""
    return _file(state().settings.output_dir.resolve(), name)


@blueprint.get("/outputs/<int:batch>/<name>")
def batch_file(batch: int, name: str) -> ResponseReturnValue:
    """A file of another batch, or of an older start-up batch."""
    return _file(state().settings.output_dir.resolve() / str(batch), name)


def _file(place: Path, name: str) -> ResponseReturnValue:
    try:
        path: Path | io.BytesIO = outputs.find_file(place, name)
    except NotFound:
        # Packed outputs have no file of their own for it.
        match = outputs.JOB_NAME.fullmatch(name)
        store = state().stores.packed(place) if match else None
        data = store.read(int(match[1])) if match and store else None
        if data is None:
            raise
        path = io.BytesIO(data)
    return send_file(path, mimetype=outputs.RESULT_TYPES.get(name, "text/csv"), download_name=name)
