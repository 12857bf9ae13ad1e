"""Watch a batch of a server to its end, and say what it has come to."""

import time
from typing import Any

import click

from batchsim.client import Client
from common.intervals import CONFIDENCE, MOST_POINTS_SHOWN, half_width, plus_minus
from common.wording import jobs_text, parameter_text, rule_text, state_text

EXIT_FAILED = 1
WATCH_SECONDS = 0.5


def watch_batch(client: Client, batch: int) -> int:
    """Print a line whenever the batch has moved; returns the exit code."""
    last = ""
    while True:
        seen = client.batch(batch)
        state = state_text(seen["state"], succeeded=seen["succeeded"])
        line = f"batch {batch}: {state}, {seen['done']:,} of {jobs_text(seen['jobs'])}"
        if line != last:
            click.echo(line)
            last = line
        if seen["finished"]:
            for text in seen.get("warnings", []):
                click.echo(f"Warning: {text}", err=True)
            if seen["counters"].get("COMPLETED") and seen["outputs"]:
                _print_results(client, batch, swept=bool(seen["options"]["sweep"]))
            return _ended(batch, seen)
        time.sleep(WATCH_SECONDS)


def _print_results(client: Client, batch: int, *, swept: bool) -> None:
    """What a batch has come to: each output's mean; of a sweep, those of the first points."""
    if not swept:
        print_estimates(client.estimates(batch, CONFIDENCE), CONFIDENCE)
        return
    page = client.points(batch, CONFIDENCE, 0)
    for point in page["points"][:MOST_POINTS_SHOWN]:
        where = ", ".join(f"{name} {parameter_text(value)}" for name, value in point["parameters"].items())
        means = [f"{name} {_mean(value)}, n {value['count']:,}" for name, value in point["outputs"].items()]
        click.echo(f"  {where}: {'; '.join(means)}")
    if page["num_points"] > MOST_POINTS_SHOWN:
        click.echo(f"  … {page['num_points']:,} points in all: batchsim estimate {batch} --points")


def _ended(batch: int, seen: dict[str, Any]) -> int:
    """Say what there is to say of a batch that has ended; returns the exit code."""
    if until := seen["options"]["until"]:
        not_run = sum(seen["counters"].get(state, 0) for state in ("ABORTED", "CANCELLED"))
        click.echo(f"  stop rule {rule_text(until, needless=seen['needless'], not_run=not_run)}")
    if seen["succeeded"]:
        return 0
    click.echo(f"Why, and what to do: batchsim explain {batch}", err=True)
    return EXIT_FAILED


def print_estimates(found: dict[str, Any], confidence: float) -> None:
    """Each output's mean with its interval, its deviation, and of how many values."""
    for name, value in found["outputs"].items():
        others = f", {value['non_finite']:,} not finite" if value["non_finite"] else ""
        said = f"{_interval(value, confidence)}, sd {_short(value['standard_deviation'])}, n {value['count']:,}{others}"
        click.echo(f"  {name}: {said}")


def _interval(value: dict[str, Any], confidence: float) -> str:
    return "mean " + _mean(value, confidence)


def _mean(value: dict[str, Any], confidence: float | None = None) -> str:
    return plus_minus(value["mean"], half_width(value["ci_low"], value["ci_high"]), confidence)


def _short(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
