"""Batches: submit one, list them, look at one and at its jobs."""

from dataclasses import replace
from typing import Any

from flask import Blueprint, request, url_for
from flask.typing import ResponseReturnValue

from common import outputs, provenance, suspicion
from common.batch import MAX_JOB_SECONDS, JobState
from common.errors import InvalidInput
from common.estimates import plain
from common.ledger import batches
from common.ledger.batches import BatchView
from common.options import Options, read_options
from services.api.body import json_body
from services.api.jobs import DEFAULT_LIMIT, MAX_LIMIT, job_rows, number
from services.api.state import state

blueprint = Blueprint("batches", __name__)

FIELDS = ("jobs", "seed", "job_seconds")


@blueprint.post("/batches")
def submit() -> ResponseReturnValue:
    """Accept ``{"jobs": 1000, "seed": 42}``; with an ``Idempotency-Key`` header at most once. 202 with the id."""
    body = _body()
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > 200:
        raise InvalidInput("Idempotency-Key is longer than 200 characters", field="Idempotency-Key")
    jobs, seed = _integer(body, "jobs"), _integer(body, "seed")
    options = read_options({name: value for name, value in body.items() if name not in FIELDS})
    spec = state().submitter.submit(
        jobs, seed, job_seconds=_seconds(body), options=options, idempotency_key=f"http:{key}" if key else ""
    )
    where = url_for("batches.show", batch=spec.id)
    return {"id": spec.id, "jobs": spec.jobs, "seed": spec.seed, "url": where}, 202, {"Location": where}


@blueprint.get("/batches")
def index() -> ResponseReturnValue:
    """A page of the batches, the newest first: ``?offset=0&limit=100``."""
    offset, limit = number("offset", 0, 0, 10**9), number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    ids = batches.all_ids(state().connection)
    page = [_brief(batches.view(state().connection, batch)) for batch in ids[offset : offset + limit]]
    more = offset + limit < len(ids)
    following = url_for("batches.index", offset=offset + limit, limit=limit) if more else None
    return {"total": len(ids), "offset": offset, "limit": limit, "next": following, "batches": page}


@blueprint.get("/batches/<int:batch>")
def show(batch: int) -> ResponseReturnValue:
    """A batch: specification, counters, progress, statistics of its outputs."""
    view = batches.view(state().connection, batch)
    found = batches.statistics(state().connection, batch, view.spec.outputs)
    failures = batches.failures(state().connection, batch)
    return {
        **_brief(view),
        "progress": view.done / view.spec.jobs,
        "statistics": {
            name: {
                "n": values.n,
                "mean": plain(values.mean),
                "standard_deviation": plain(values.standard_deviation),
                "min": values.min,
                "max": values.max,
            }
            for name, values in found.items()
        },
        "outputs": view.spec.outputs,
        "environment": view.spec.environment,
        "defaults": view.spec.defaults,
        # It decides which jobs run.
        "command": provenance.command(
            replace(view.spec, max_fails=view.max_fails), outputs.locate(state().settings.output_dir, view.spec)
        ),
        "warnings": suspicion.warnings(state().connection, view),
        "version": view.spec.version,
        "options": {name: getattr(view.spec, name) for name in Options.model_fields},
        "crashes": view.crashes,
        "failures": {str(job): text for job, text in sorted(failures.items())[:20]},
    }


@blueprint.get("/batches/<int:batch>/jobs")
def jobs(batch: int) -> ResponseReturnValue:
    """A page of a batch's jobs: ``?offset=0&limit=100``."""
    offset, limit = number("offset", 0, 0, 10**9), number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    view = batches.view(state().connection, batch)
    rows = list(job_rows(state(), view, offset, limit))
    more = offset + limit < view.spec.jobs
    following = url_for("batches.jobs", batch=batch, offset=offset + limit, limit=limit) if more else None
    return {
        "batch": batch,
        "num_jobs": view.spec.jobs,
        "offset": offset,
        "limit": limit,
        "next": following,
        "jobs": rows,
    }


def _brief(view: BatchView) -> dict[str, Any]:
    spec = view.spec
    return {
        "id": spec.id,
        "state": view.state,
        "jobs": spec.jobs,
        "seed": spec.seed,
        "simulation": spec.simulation,
        "startup": spec.startup,
        "partition": spec.partition,
        "priority": view.priority,
        "throttle": view.throttle,
        "max_fails": view.max_fails,
        "held": view.held,
        "output_mode": spec.output_mode,
        "counters": {job.name: view.counters[job] for job in JobState if view.counters[job]},
        "done": view.done,
        "needless": view.needless,
        "succeeded": view.ended is not None and view.succeeded,
        "created": view.created,
        "started": view.started,
        "ended": view.ended,
        "finished": view.finished,
    }


def _body() -> dict[str, Any]:
    body = json_body()
    if not isinstance(body, dict):
        raise InvalidInput('The body must be a JSON object such as {"jobs": 1000}', field="body")
    known = (*FIELDS, *Options.model_fields)
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise InvalidInput(f"{unknown[0]} is not a field; there are {', '.join(known)}", field=unknown[0])
    return body


def _seconds(body: dict[str, Any]) -> float:
    value = body.get("job_seconds", 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput("job_seconds must be a number", field="job_seconds")
    if abs(value) > MAX_JOB_SECONDS:
        raise InvalidInput(f"job_seconds must be from 0 to {MAX_JOB_SECONDS}", field="job_seconds")
    return float(value)


def _integer(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if isinstance(value, float) and value.is_integer():
        # JSON has one kind of number: 1000.0 is a thousand.
        value = int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise InvalidInput(f"{name} must be a whole number", field=name)
    return value
