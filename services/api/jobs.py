"""The start-up batch's jobs: how many, their states and results, and once more."""

import math
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, current_app, redirect, request, url_for
from flask.typing import ResponseReturnValue

from common.batch import JobState, Reason
from common.errors import InvalidInput
from common.ledger import batches, workers
from common.ledger.batches import BatchView
from common.ledger.table import page, record_dtype
from common.outputs import job_name
from services.api.state import ApiState, state

blueprint = Blueprint("jobs", __name__)

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000


@blueprint.get("/jobs/count")
def count() -> ResponseReturnValue:
    """How many jobs the start-up batch has; before it is submitted, how many it will have."""
    view = state().submitter.current()
    return {"num_jobs": view.spec.jobs if view else state().settings.num_jobs}


@blueprint.get("/jobs")
def jobs() -> ResponseReturnValue:
    """A page of the start-up batch's jobs: ``?offset=0&limit=100``."""
    offset, limit = number("offset", 0, 0, 10**9), number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    view = state().submitter.current()
    if view is None:
        return {"batch": None, "num_jobs": 0, "offset": offset, "limit": limit, "next": None, "jobs": []}
    rows = list(job_rows(state(), view, offset, limit))
    more = offset + limit < view.spec.jobs
    return {
        "batch": view.spec.id,
        "state": view.state,
        "num_jobs": view.spec.jobs,
        "offset": offset,
        "limit": limit,
        "next": url_for("jobs.jobs", offset=offset + limit, limit=limit) if more else None,
        "jobs": rows,
    }


@blueprint.post("/rerun")
def rerun() -> ResponseReturnValue:
    """Run the start-up batch again with a new seed: 202, or 409 while it still runs."""
    spec = state().submitter.rerun()
    current_app.logger.info("rerun: batch %s", spec.id)
    if request.accept_mimetypes.best == "text/html":
        return redirect(url_for("page.index"), 303)
    body = {"batch": spec.id, "num_jobs": spec.jobs, "seed": spec.seed}
    return body, 202, {"Location": url_for("jobs.jobs")}


def job_rows(api: ApiState, view: BatchView, offset: int, limit: int) -> Iterator[dict[str, Any]]:
    """Jobs ``offset + 1`` … of a batch as JSON objects, at most ``limit``."""
    spec = view.spec
    size = min(limit, max(0, spec.jobs - offset))
    if not size:
        return
    records = page(api.connection, spec.id, offset + 1, size, record_dtype(spec.outputs))
    running = batches.running_jobs(api.connection, spec.id)
    slots = workers.slot_names(api.connection)
    own = spec.startup and batches.startup_id(api.connection) == spec.id
    for index, record in enumerate(records, offset + 1):
        job = JobState(int(record["state"]))
        if job is JobState.PENDING:
            job = JobState.RUNNING if index in running else job
        row: dict[str, Any] = {"id": f"{spec.id}_{index}", "index": index, "state": job.name}
        if record["reason"]:
            row["reason"] = Reason(int(record["reason"])).name
        if record["started"]:
            row |= {"attempt": int(record["attempt"]), "slot": slots.get(int(record["slot"]))}
            row |= {"started": float(record["started"]), "elapsed_seconds": float(record["elapsed"])}
        if job is JobState.COMPLETED:
            row |= {name: _value(float(record[f"out:{name}"])) for name in spec.outputs}
            row["csv"] = _csv_url(view, index, own)
        yield row


def _value(value: float) -> float | None:
    """An output as JSON has it, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _csv_url(view: BatchView, index: int, own: bool) -> str:
    if own:
        return url_for("files.startup_file", name=job_name(index))
    return url_for("files.batch_file", batch=view.spec.id, name=job_name(index))


def number(name: str, default: int, least: int, most: int) -> int:
    """A whole number from the query. Raises :class:`InvalidInput` that names the parameter."""
    given = request.args.getlist(name)
    if not given:
        return default
    if (
        len(given) > 1
        or not given[0].isdecimal()
        or not given[0].isascii()
        or len(given[0]) > 12
        or not least <= int(given[0]) <= most
    ):
        raise InvalidInput(f"{name} must be one whole number from {least} to {most}", field=name)
    return int(given[0])
