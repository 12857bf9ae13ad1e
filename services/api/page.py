"""``GET /``: one plain page that renders without scripts."""

from flask import Blueprint, current_app, render_template
from flask.typing import ResponseReturnValue

from common.batch import JobState
from common.errors import BatchSimError
from common.ledger import batches
from services.api.jobs import job_rows, number
from services.api.state import state

blueprint = Blueprint("page", __name__)

JOBS_SHOWN = 200


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Health, progress and the first jobs of the start-up batch, or of ``?batch=7``; shown even while Redis is away."""
    health = current_app.extensions["health"].report()
    view, rows, statistics, own, error, status = None, [], {}, False, "", 200
    if health["broker"]:
        try:
            chosen = number("batch", 0, 1, 10**9)
            view = batches.view(state().connection, chosen) if chosen else state().submitter.current()
            if view:
                rows = list(job_rows(state(), view, 0, JOBS_SHOWN))
                statistics = batches.statistics(state().connection, view.spec.id, view.spec.outputs)
                own = view.spec.startup and view.spec.id == batches.startup_id(state().connection)
        except BatchSimError as caught:
            error, status = caught.message, caught.status
    page = render_template(
        "index.html",
        health=health,
        view=view,
        rows=rows,
        statistics=statistics,
        error=error,
        own=own,
        states=[(job, count) for job, count in view.counters.items() if count] if view else [],
        failed=sum(view.counters[job] for job in JobState if job.terminal and job is not JobState.COMPLETED)
        if view
        else 0,
        ended=bool(view and view.ended),
    )
    return page, status
