"""The verbs of the command line that talk to a server: submit, look, watch, and act on batches."""

import csv
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from batchsim.client import Client
from batchsim.programs import WithoutProgram
from batchsim.sweeping import NAMES, read, sweep_options, untyped
from batchsim.watching import print_estimates, watch_batch
from common.errors import InvalidInput
from common.indices import parse_id
from common.intervals import CONFIDENCE
from common.options import DEFAULTS, Options
from common.simulations.described import Kinds, kinds_of
from common.simulations.reasons import place_and_reason
from common.wording import jobs_text, parameter_text

# What `requeue` runs again only when it is asked to.
NOT_FAILED = ("CANCELLED", "ABORTED")
POINT_FIELDS = ("count", "mean", "standard_error", "ci_low", "ci_high")

F = TypeVar("F", bound=Callable[..., Any])


class BatchId(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """A whole batch's id. No click.INT: to Python 7_42 is seven hundred and forty-two."""

    name = "batch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if isinstance(value, int):
            return value
        batch, jobs = parse_id(value)
        if jobs:
            self.fail(f"{value!r} names jobs; this is done to a whole batch, such as {batch}", param, ctx)
        return batch


BATCH = BatchId()


def server_options(function: F) -> F:
    """Give a verb the options that say which server it talks to."""
    function = click.option(
        "--token", envvar="API_TOKEN", default="", help="the server's API_TOKEN; better given by the environment"
    )(function)
    return click.option(
        "--url", envvar="BATCHSIM_URL", default="http://127.0.0.1:8080", show_default=True, help="the server"
    )(function)


def batch_options(function: F) -> F:
    """Give a verb one option per field of :class:`Options`; what was not given is left to the server."""
    for name, field in reversed(Options.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            option = click.option(flag, name, is_flag=True, default=None, help=field.description)
        elif name in ("parameters", "sweep"):
            continue
        else:
            kind = field.annotation if field.annotation in (int, float) else str
            choices = get_args(field.annotation) if name == "output_mode" else ()
            given = click.Choice(choices) if choices else kind
            option = click.option(flag, name, type=given, default=None, help=field.description)
        function = option(function)
    return function


def batch_fields(given: dict[str, Any], kinds: Kinds = untyped) -> dict[str, Any]:
    """Take the options of :func:`batch_options` and of a sweep out of all that were given.

    ``kinds`` says what each parameter takes. Raises :class:`InvalidInput` that names the option.
    """
    swept = read(kinds, **{name: given.pop(name) for name in NAMES})
    own = {name: given.pop(name) for name in Options.model_fields if name in given}
    return {name: value for name, value in own.items() if value is not None} | swept


@click.command(cls=WithoutProgram)
@click.option("--jobs", type=int, help="number of jobs; of a sweep, its points times --replications")
@click.option("--seed", type=int, help="seed; without one a random one is drawn")
@click.option("--job-seconds", type=float, default=0.0, help="time that each job waits first, s")
@click.option("--idempotency-key", default="", help="the same key gives the same batch, however often it is sent")
@click.option("--watch", "then_watch", is_flag=True, help="watch it to its end")
@sweep_options
@batch_options
@server_options
def submit(
    jobs: int | None,
    seed: int | None,
    job_seconds: float,
    idempotency_key: str,
    then_watch: bool,
    url: str,
    token: str,
    **options: Any,
) -> None:
    """Submit a batch to a server; prints its id.

    Each parameter of --simulation is an option, too: --sigma 0.1,0.2 is --param sigma=0.1,0.2.
    """
    client = Client(url, token)
    given = batch_fields(options, kinds_of(lambda: _schema(client, options["simulation"] or DEFAULTS.simulation)))
    try:
        accepted = client.submit(jobs, seed, job_seconds=job_seconds, idempotency_key=idempotency_key, **given)
    except InvalidInput as error:
        if jobs is None and error.field == "jobs":
            raise InvalidInput("--jobs is missing: give a number, such as --jobs 1000", field="jobs") from None
        raise
    click.echo(str(accepted["id"]))
    if then_watch:
        sys.exit(watch_batch(client, accepted["id"]))


def _schema(client: Client, simulation: str) -> dict[str, Any]:
    """The parameters of a simulation as the server knows them; empty when it does not."""
    found = client.simulations().get("simulations", [])
    return next((each["parameters"] for each in found if each["name"] == simulation), {})


@click.command()
@click.argument("batch", type=BATCH)
@server_options
def show(batch: int, url: str, token: str) -> None:
    """Show a batch of a server as JSON: state, counters, progress, statistics."""
    click.echo(json.dumps(Client(url, token).batch(batch), indent=2))


@click.command()
@click.argument("batch", type=BATCH)
@server_options
def watch(batch: int, url: str, token: str) -> None:
    """Watch a batch of a server to its end; exit code 0 when every job completed."""
    sys.exit(watch_batch(Client(url, token), batch))


@click.command()
@click.argument("id")
@click.option(
    "--state", type=click.Choice(["PENDING", "RUNNING"], case_sensitive=False), help="only jobs in this state"
)
@server_options
def cancel(id: str, state: str | None, url: str, token: str) -> None:  # noqa: A002 - what the user types
    """Cancel a batch (7), a job (7_42) or some (7_[1-9,20]) of a server; jobs that run are stopped.

    With --state PENDING also jobs that a slot has done within about the last second and not committed yet.
    """
    batch, jobs = parse_id(id)
    body = ({"jobs": jobs} if jobs else {}) | ({"state": state} if state else {})
    seen = Client(url, token).act(batch, "cancel", **body)
    click.echo(f"batch {batch}: {jobs_text(seen['cancelled'])} cancelled; it is {seen['state']}")
    if "warning" in seen:
        click.echo(f"Warning: {seen['warning']}", err=True)


@click.command()
@click.argument("batch", type=BATCH)
@server_options
def hold(batch: int, url: str, token: str) -> None:
    """Start no more jobs of a batch; those that run go on to their end."""
    click.echo(f"batch {batch}: {Client(url, token).act(batch, 'hold')['state']}")


@click.command()
@click.argument("batch", type=BATCH)
@server_options
def release(batch: int, url: str, token: str) -> None:
    """Let a held batch go on."""
    click.echo(f"batch {batch}: {Client(url, token).act(batch, 'release')['state']}")


@click.command()
@click.argument("batch", type=BATCH)
@click.option("--throttle", type=int, help="most jobs that run at a time; 0: no limit")
@click.option("--priority", type=int, help="batches with a higher one go first")
@click.option("--max-fails", help=Options.model_fields["max_fails"].description)
@server_options
def update(batch: int, throttle: int | None, priority: int | None, max_fails: str | None, url: str, token: str) -> None:
    """Change a batch's throttle, priority or max_fails while it runs.

    Also the max_fails of a batch that was ended by it: then requeue its ABORTED jobs.
    """
    given = {"throttle": throttle, "priority": priority, "max_fails": max_fails}
    seen = Client(url, token).update(batch, **{name: value for name, value in given.items() if value is not None})
    limit = "" if seen["max_fails"] is None else f", max_fails {seen['max_fails']}"
    click.echo(f"batch {batch}: {seen['state']}, throttle {seen['throttle']}, priority {seen['priority']}{limit}")


@click.command()
@click.argument("batch", type=BATCH)
@click.option("--state", "states", multiple=True, help="jobs in this state; repeatable [default: all that failed]")
@click.option("--missing", is_flag=True, help="jobs that completed and whose CSV is gone")
@server_options
def requeue(batch: int, states: tuple[str, ...], missing: bool, url: str, token: str) -> None:
    """Run jobs of a batch again, with the same seeds and one more attempt."""
    body: dict[str, Any] = ({"states": list(states)} if states else {}) | ({"missing": True} if missing else {})
    seen = Client(url, token).act(batch, "requeue", **body)
    click.echo(f"batch {batch}: {jobs_text(seen['requeued'])} to run again; it is {seen['state']}")
    if not (seen["requeued"] or states or missing):
        _advise_states(batch, seen["counters"])


def _advise_states(batch: int, counters: dict[str, int]) -> None:
    """No job has failed, and so none runs again; say how others do."""
    for state in NOT_FAILED:
        if count := counters.get(state):
            which = f"the {jobs_text(count)} that {'is' if count == 1 else 'are'} {state}"
            click.echo(f"No job of it failed. To run {which}: batchsim requeue {batch} --state {state}", err=True)


@click.command()
@click.argument("id")
@server_options
def explain(id: str, url: str, token: str) -> None:  # noqa: A002 - what the user types
    """Say why a batch (7) or a job (7_42) waits, failed, or ran twice, and what to do."""
    batch, job = parse_id(id)
    if job and not job.isdecimal():
        raise click.BadParameter("one job at a time, such as 7_42", param_hint="ID")
    said = Client(url, token).explain(batch, int(job) if job else None)
    click.echo(f"{said['id']} is {said['state']}" + (f" ({said['reason']})" if said["reason"] else ""))
    for line in said["details"]:
        click.echo("  " + line.replace("\n", "\n    "))
    # Jobs that ended for several reasons have a line each.
    advice = f"\n{said['advice']}" if "\n" in said["advice"] else f" {said['advice']}"
    click.echo("  What to do:" + advice.replace("\n", "\n    "))


@click.command()
@click.argument("batch", type=BATCH)
@click.option("--points", "by_point", is_flag=True, help="of each point of a sweep, as CSV")
@click.option("--confidence", type=float, default=CONFIDENCE, show_default=True, help="of the intervals")
@server_options
def estimate(batch: int, by_point: bool, confidence: float, url: str, token: str) -> None:
    """Show each output's mean with its confidence interval, as far as the batch is."""
    client = Client(url, token)
    if by_point:
        _print_points(client, batch, confidence)
        return
    found = client.estimates(batch, confidence)
    click.echo(f"batch {batch}: {found['state']}, {found['done']:,} of {found['jobs']:,} jobs")
    print_estimates(found, confidence)


def _print_points(client: Client, batch: int, confidence: float) -> None:
    writer, offset, header = csv.writer(sys.stdout), 0, False
    while True:
        page = client.points(batch, confidence, offset)
        for point in page["points"]:
            if not header:
                fields = [f"{name}_{part}" for name in point["outputs"] for part in POINT_FIELDS]
                writer.writerow([*point["parameters"], *fields])
                header = True
            values = [value[part] for value in point["outputs"].values() for part in POINT_FIELDS]
            writer.writerow([*map(parameter_text, point["parameters"].values()), *values])
        offset += len(page["points"])
        if not page["next"]:
            return


@click.command()
@click.option("--json", "as_json", is_flag=True, help="with the parameters' JSON Schema, and whole tracebacks")
@click.option("--local", is_flag=True, help="of this directory, without a server")
@click.option("--simulations-dir", help="with --local: look there, too  [default: SIMULATIONS_DIR]")
@server_options
def simulations(as_json: bool, local: bool, simulations_dir: str | None, url: str, token: str) -> None:
    """List what a server can run, and which files and tables are broken; with --local what can be run from here."""
    if simulations_dir is not None and not local:
        raise InvalidInput("--simulations-dir is for --local; a server has its own", field="simulations_dir")
    found = _here(simulations_dir) if local else Client(url, token).simulations()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for each in found["simulations"]:
        names = ", ".join(each["parameters"].get("properties", {}))
        click.echo(f"{each['name']}({names}) -> {', '.join(each['outputs'])}: {each['description']}")
    for path, error in found["broken"].items():
        place, reason = place_and_reason(path, error)
        click.echo(f"{place} cannot be used: {reason}", err=True)


def _here(directory: str | None) -> dict[str, Any]:
    from common import settings
    from common.simulations import registry

    registry.use(settings.load({"simulations_dir": directory}).simulations_dir)
    return registry.everything().to_dict()


VERBS = (submit, show, watch, cancel, hold, release, update, requeue, explain, estimate, simulations)
