"""What people do to a batch that is there: cancel, hold, release, change, run again, and ask why."""

from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from common.batch import JobState
from common.control import RUN_AGAIN
from common.errors import InvalidInput
from common.explain import explain_batch, explain_job
from common.indices import parse_spans
from common.ledger import batches
from common.ledger.batches import BatchView
from common.options import read_options
from services.api.body import json_object
from services.api.jobs import number
from services.api.state import state

blueprint = Blueprint("control", __name__)

CHANGEABLE = ("throttle", "priority", "max_fails")


@blueprint.post("/batches/<int:batch>/cancel")
def cancel(batch: int) -> ResponseReturnValue:
    """Cancel the batch; with ``{"jobs": "1-9,42"}`` those, with ``{"state": "PENDING"}`` or RUNNING those of them.

    The answer has a ``warning`` when it is done and could not be noted on the volume.
    """
    body = json_object("jobs", "state")
    # null, of a client that has not filled it in, is none of them: it would cancel more than was meant.
    given = body.get("state")
    wanted = given.upper() if isinstance(given, str) else ""
    if "state" in body and wanted not in ("PENDING", "RUNNING"):
        raise InvalidInput("state must be PENDING or RUNNING: other jobs have ended", field="state")
    text = body.get("jobs")
    if "jobs" in body and (isinstance(text, bool) or not isinstance(text, str | int)):
        raise InvalidInput('jobs must be a text such as "1-9,42"', field="jobs")
    spans = parse_spans(str(text), batches.view(state().connection, batch).spec.jobs) if "jobs" in body else []
    warnings: list[str] = []
    done = state().controller.cancel(batch, spans, state=wanted, warn=warnings.append)
    said = {"warning": warnings[0]} if warnings else {}
    return {**_standing(batches.view(state().connection, batch)), "cancelled": done, **said}


@blueprint.post("/batches/<int:batch>/hold")
def hold(batch: int) -> ResponseReturnValue:
    """Start no more of its jobs; those that run go on to their end."""
    json_object()
    return _standing(state().controller.adjust(batch, "held", 1))


@blueprint.post("/batches/<int:batch>/release")
def release(batch: int) -> ResponseReturnValue:
    """Let a held batch go on."""
    json_object()
    return _standing(state().controller.adjust(batch, "held", 0))


@blueprint.patch("/batches/<int:batch>")
def change(batch: int) -> ResponseReturnValue:
    """Change ``{"throttle": N, "priority": P, "max_fails": M}`` while it runs; ``max_fails`` also when it has ended."""
    body = json_object(*CHANGEABLE)
    if not body:
        raise InvalidInput(f"send at least one of {', '.join(CHANGEABLE)}", field="body")
    if body.get("max_fails", "") is None:
        raise InvalidInput('max_fails must be a number of jobs, or "5%"; "100%" is no limit', field="max_fails")
    checked = read_options(body)
    view = batches.view(state().connection, batch)
    if "throttle" in body:
        view = state().controller.adjust(batch, "throttle", checked.throttle)
    if "priority" in body:
        view = state().controller.adjust(batch, "priority", checked.priority)
    most_fails = checked.most_fails(view.spec.jobs)
    if most_fails is not None:
        view = state().controller.adjust(batch, "max_fails", most_fails)
    return _standing(view)


@blueprint.post("/batches/<int:batch>/requeue")
def requeue(batch: int) -> ResponseReturnValue:
    """Run again what failed, or the jobs in ``{"states": […]}``, and with ``{"missing": true}`` lost results."""
    body = json_object("states", "missing")
    names = body.get("states", [])
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InvalidInput('states must be a list such as ["FAILED", "TIMEOUT"]', field="states")
    if not isinstance(body.get("missing", False), bool):
        raise InvalidInput("missing must be true or false", field="missing")
    missing = bool(body.get("missing", False))
    states = [_state(name) for name in names] if "states" in body or missing else list(RUN_AGAIN)
    count = state().controller.requeue(batch, states, missing=missing)
    return {**_standing(batches.view(state().connection, batch)), "requeued": count}


@blueprint.get("/batches/<int:batch>/explain")
def explain(batch: int) -> ResponseReturnValue:
    """Why the batch, or with ``?job=42`` that job, waits, failed, or ran twice; and what to do."""
    if "job" in request.args:
        return explain_job(state().connection, batch, number("job", 1, 1, 10**9)).to_dict()
    return explain_batch(state().connection, batch).to_dict()


def _state(name: str) -> JobState:
    try:
        return JobState[name.upper()]
    except KeyError:
        raise InvalidInput(f"{name!r} is not a state of a job", field="states") from None


def _standing(view: BatchView) -> dict[str, Any]:
    return {
        "id": view.spec.id,
        "state": view.state,
        "held": view.held,
        "throttle": view.throttle,
        "priority": view.priority,
        "max_fails": view.max_fails,
        "counters": {job.name: view.counters[job] for job in JobState if view.counters[job]},
    }
