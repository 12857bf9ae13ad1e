"""``POST /batches/<batch>/verify``: run a sample of its completed jobs again on other workers, and compare bytes."""

from flask import Blueprint, url_for
from flask.typing import ResponseReturnValue

from common.errors import InvalidInput
from common.verification import to_json
from services.api.body import json_object
from services.api.state import state

blueprint = Blueprint("verification", __name__)

DEFAULT_SAMPLE = 100


@blueprint.post("/batches/<int:batch>/verify")
def begin(batch: int) -> ResponseReturnValue:
    """Begin with ``{"sample": 100}`` jobs: 202 with the verification's address, 409 when there is nothing to verify."""
    sample = json_object("sample").get("sample", DEFAULT_SAMPLE)
    if isinstance(sample, bool) or not isinstance(sample, int):
        raise InvalidInput("sample must be a whole number", field="sample")
    name = state().verifier.request(batch, sample)
    where = url_for("verification.show", batch=batch, verification=name)
    return {**to_json(state().verifier.look(batch, name)), "url": where}, 202, {"Location": where}


@blueprint.get("/batches/<int:batch>/verify/<verification>")
def show(batch: int, verification: str) -> ResponseReturnValue:
    """What has been found so far; kept for a day."""
    return to_json(state().verifier.look(batch, verification))
