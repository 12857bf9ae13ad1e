"""``GET /batches/<batch>/estimates``: what the outputs are, as far as is known, and how sure that is."""

from flask import Blueprint, request, url_for
from flask.typing import ResponseReturnValue

from common import estimates
from common.errors import InvalidInput
from common.ledger import batches
from common.sweep import Sweep
from services.api.jobs import DEFAULT_LIMIT, number
from services.api.state import state

blueprint = Blueprint("estimates", __name__)


@blueprint.get("/batches/<int:batch>/estimates")
def overall(batch: int) -> ResponseReturnValue:
    """Over all completed jobs, at this moment: ``?confidence=0.95``."""
    view = batches.view(state().connection, batch)
    found = estimates.overall(state().connection, view.spec, confidence=_confidence())
    return {"id": batch, "state": view.state, "done": view.done, "jobs": view.spec.jobs, "outputs": found}


@blueprint.get("/batches/<int:batch>/points")
def points(batch: int) -> ResponseReturnValue:
    """Point by point of a sweep: ``?offset=0&limit=100&confidence=0.95``."""
    view = batches.view(state().connection, batch)
    offset, limit = number("offset", 0, 0, 10**9), number("limit", DEFAULT_LIMIT, 1, estimates.MOST_POINTS)
    confidence = _confidence()
    found = estimates.by_point(state().connection, view.spec, offset=offset, limit=limit, confidence=confidence)
    page = list(found)
    size = Sweep.from_dict(view.spec.sweep).size
    following = url_for("estimates.points", batch=batch, offset=offset + limit, limit=limit, confidence=confidence)
    return {"id": batch, "num_points": size, "next": following if offset + limit < size else None, "points": page}


def _confidence() -> float:
    text = request.args.get("confidence", str(estimates.DEFAULT_CONFIDENCE))
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"confidence is {text!r}; it must be a number such as 0.95", field="confidence") from None
