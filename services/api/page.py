"""``GET /``: one plain page that renders without scripts."""

from typing import Any

from flask import Blueprint, current_app, render_template
from flask.typing import ResponseReturnValue

from common import estimates, outputs
from common.errors import BatchSimError
from common.intervals import MOST_POINTS_SHOWN, half_width, plus_minus
from common.ledger import batches
from common.ledger.batches import BatchView
from common.statistics import Moments
from common.sweep import Sweep
from common.wording import parameter_text
from services.api.jobs import job_rows, number
from services.api.state import state

blueprint = Blueprint("page", __name__)

JOBS_SHOWN = 200
# Of whose jobs the page computes estimates at each look.
MOST_JOBS_LOOKED_AT = 2**18


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Health, progress and the first jobs of the start-up batch, or of ``?batch=7``; shown even while Redis is away."""
    health = current_app.extensions["health"].report()
    shown: dict[str, Any] = {}
    error, status = "", 200
    if health["broker"]:
        try:
            chosen = number("batch", 0, 1, 10**9)
            view = batches.view(state().connection, chosen) if chosen else state().submitter.current()
            shown = _shown(view) if view else {}
        except BatchSimError as caught:
            error, status = caught.message, caught.status
    return render_template("index.html", health=health, error=error, **shown), status


def _shown(view: BatchView) -> dict[str, Any]:
    """What the page shows of a batch."""
    spec, own = view.spec, view.spec.startup and view.spec.id == batches.startup_id(state().connection)
    place = outputs.locate(state().settings.output_dir, spec)
    return {
        "view": view,
        "own": own,
        "states": [(job, count) for job, count in view.counters.items() if count],
        "ended": bool(view.ended),
        "rows": list(job_rows(state(), view, 0, JOBS_SHOWN)),
        "means": [] if spec.sweep else _means(view),
        "points": _points(view) if spec.sweep else [],
        "size": Sweep.from_dict(spec.sweep).size if spec.sweep else 1,
        "files": [name for name in outputs.RESULT_TYPES if (place / name).is_file()] if view.finished else [],
    }


def _means(view: BatchView) -> list[tuple[str, str, Moments]]:
    """Each output with its mean and interval as text, so far."""
    found = batches.statistics(state().connection, view.spec.id, view.spec.outputs)
    return [
        (name, plus_minus(values.mean, estimates.half_width(values), estimates.DEFAULT_CONFIDENCE), values)
        for name, values in found.items()
    ]


def _points(view: BatchView) -> list[dict[str, Any]]:
    """The first points of a sweep: parameters, jobs, and each output's mean and interval as text."""
    limit = min(MOST_POINTS_SHOWN, MOST_JOBS_LOOKED_AT // int(view.spec.sweep["replications"]))
    if not view.spec.outputs or not limit:
        return []
    return [
        {
            "parameters": {name: parameter_text(value) for name, value in point["parameters"].items()},
            "jobs": max(said["count"] for said in point["outputs"].values()),
            "means": [
                plus_minus(said["mean"], half_width(said["ci_low"], said["ci_high"]))
                for said in point["outputs"].values()
            ],
        }
        for point in estimates.by_point(state().connection, view.spec, limit=limit)
    ]
