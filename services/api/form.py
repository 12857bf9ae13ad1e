"""``/submit``: as ``POST /batches``, for people with a browser; its fields come from the parameters' JSON Schema."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from common.errors import InvalidInput
from common.options import read_options
from common.simulations import registry
from common.simulations.declare import Simulation
from common.simulations.described import Described, describe
from common.spelling import Kind, parse_values
from services.api.body import refuse_invalid_text
from services.api.state import state

blueprint = Blueprint("form", __name__)

# The fields of every batch; a parameter's field has this in front of its name.
PARAMETER = "param:"
JOBS, SEED, REPLICATIONS, UNTIL, OUTPUT_MODE = "jobs", "seed", "replications", "until", "output_mode"
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Field:
    """A parameter as a field: ``choices`` are all that it can be, or none."""

    name: str
    kind: Kind
    required: bool
    default: str
    hint: str
    choices: tuple[str, ...] = ()
    none: bool = False


@blueprint.get("/submit")
def choose() -> ResponseReturnValue:
    """Every simulation with a link to its form."""
    found = registry.everything()
    return render_template("choose.html", simulations=list(found.found.values()), broken=found.broken)


@blueprint.get("/submit/<name>")
def fill(name: str) -> ResponseReturnValue:
    """The form of a simulation."""
    return _page(registry.find(name), {})


@blueprint.post("/submit/<name>")
def submit(name: str) -> ResponseReturnValue:
    """Submit what was filled in: on to the batch's page, or the form again with what is wrong."""
    found = registry.find(name)
    try:
        jobs, seed, options = _read(found, request.form)
        spec = state().submitter.submit(jobs, seed, options=read_options(options))
    except InvalidInput as error:
        return _page(found, request.form, error.message), error.status
    return redirect(url_for("page.index", batch=spec.id), 303)


def fields(simulation: Simulation) -> list[Field]:
    """The parameters as fields, in the order of the signature."""
    return [_field(each) for each in describe(simulation.schema()["parameters"])]


def _field(each: Described) -> Field:
    default = _text(each.default)
    choices = ("true", "false") if each.type == "boolean" else tuple(_text(value) for value in each.choices)
    if choices and not each.required and default not in choices:
        # Or the first would be sent when nothing was chosen.
        choices = (default, *choices)
    limits = [f"{_LIMITS[word]} {value}" for word, value in each.limits.items()]
    hint = ", ".join(part for part in (each.description, *limits) if part)
    return Field(each.name, each.kind, each.required, default, hint, choices, each.none)


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


def _read(simulation: Simulation, form: Mapping[str, str]) -> tuple[int | None, int | None, dict[str, Any]]:
    """Jobs, seed and options. Raises :class:`InvalidInput`."""
    fixed: dict[str, Any] = {}
    axes: dict[str, list[Any]] = {}
    for field in fields(simulation):
        text = form.get(PARAMETER + field.name, "").strip()
        if not text or text == field.default:
            continue
        values = _values(field, text)
        if len(values) == 1:
            fixed[field.name] = values[0]
        else:
            axes[field.name] = values
    options: dict[str, Any] = {"simulation": simulation.name, "parameters": fixed}
    options |= {name: form[name] for name in (UNTIL, OUTPUT_MODE) if form.get(name)}
    jobs = _whole(form, JOBS)
    if axes:
        # A sweep has a number of jobs of its own; what stands in the other field is not meant.
        options["sweep"] = {"axes": axes, "replications": _whole(form, REPLICATIONS) or 1}
        jobs = None
    return jobs, _whole(form, SEED), options


def _values(field: Field, text: str) -> list[Any]:
    # A text may have commas and colons of its own.
    if field.kind is Kind.TEXT:
        return [None if field.none and text == "null" else text]
    try:
        values = parse_values(text, field.kind, none=field.none)
    except ValueError as error:
        raise InvalidInput(f"{field.name}: {error}", field=field.name) from None
    refuse_invalid_text(values, field.name)
    return values


def _whole(form: Mapping[str, str], name: str) -> int | None:
    text = form.get(name, "").strip().replace(",", "").replace("_", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise InvalidInput(f"{name} is {form[name]!r:.80}; it must be a whole number", field=name)
    return int(text)


def _page(simulation: Simulation, given: Mapping[str, str], error: str = "") -> str:
    return render_template(
        "submit.html", simulation=simulation, fields=fields(simulation), given=given, error=error, prefix=PARAMETER
    )
