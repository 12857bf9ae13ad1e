"""The command ``batchsim``. Every setting is an option; ``--help`` of a verb lists them."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from batchsim.client import Client
from common import settings as settings_module
from common.settings import SECRETS, Settings

EXIT_FAILED = 1
WATCH_SECONDS = 0.5

F = TypeVar("F", bound=Callable[..., Any])


def setting_options(function: F) -> F:
    """Give a verb one option per setting; secrets are left out, for a command line can be read by everybody."""
    for name, field in reversed(Settings.model_fields.items()):
        if name in SECRETS:
            continue
        option = f"--{name.replace('_', '-')}"
        default = (
            "" if field.default_factory else f"  [default: {field.default}]" if field.default not in (None, "") else ""
        )
        function = click.option(option, name, metavar="VALUE", help=f"{field.description}{default}")(function)
    return function


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="hpc-batch-sim", prog_name="batchsim")
def batchsim() -> None:
    """One simulation, a million runs, any number of containers, and results you can trust."""


@batchsim.command()
@click.option("--resume", is_flag=True, help="go on with the batch in OUTPUT_DIR: run only what is missing")
@setting_options
def run(resume: bool, **options: str | None) -> None:
    """Run NUM_JOBS jobs on this machine, show the progress, write the CSVs, and exit."""
    configured = settings_module.load(options)
    from services.local.run import run as run_embedded

    sys.exit(run_embedded(configured, resume=resume))


@batchsim.command()
@setting_options
def serve(**options: str | None) -> None:
    """Serve API, page, workers and Flower on this machine until Ctrl-C; runs NUM_JOBS jobs first."""
    configured = settings_module.load(options)
    from services.local.serve import serve as serve_embedded

    sys.exit(serve_embedded(configured))


def server_options(function: F) -> F:
    """Give a verb the options that say which server it talks to."""
    function = click.option(
        "--token", envvar="API_TOKEN", default="", help="the server's API_TOKEN; better given by the environment"
    )(function)
    return click.option(
        "--url", envvar="BATCHSIM_URL", default="http://127.0.0.1:8080", show_default=True, help="the server"
    )(function)


@batchsim.command()
@click.option("--jobs", type=int, required=True, help="number of jobs")
@click.option("--seed", type=int, help="seed; without one a random one is drawn")
@click.option("--job-seconds", type=float, default=0.0, help="time that each job waits first, s")
@click.option("--idempotency-key", default="", help="the same key gives the same batch, however often it is sent")
@click.option("--watch", "then_watch", is_flag=True, help="watch it to its end")
@server_options
def submit(
    jobs: int, seed: int | None, job_seconds: float, idempotency_key: str, then_watch: bool, url: str, token: str
) -> None:
    """Submit a batch to a server; prints its id."""
    client = Client(url, token)
    accepted = client.submit(jobs, seed, job_seconds=job_seconds, idempotency_key=idempotency_key)
    click.echo(str(accepted["id"]))
    if then_watch:
        sys.exit(watch_batch(client, accepted["id"]))


@batchsim.command()
@click.argument("batch", type=int)
@server_options
def show(batch: int, url: str, token: str) -> None:
    """Show a batch of a server as JSON: state, counters, progress, statistics."""
    click.echo(json.dumps(Client(url, token).batch(batch), indent=2))


@batchsim.command()
@click.argument("batch", type=int)
@server_options
def watch(batch: int, url: str, token: str) -> None:
    """Watch a batch of a server to its end; exit code 0 when every job completed."""
    sys.exit(watch_batch(Client(url, token), batch))


def watch_batch(client: Client, batch: int) -> int:
    """Print a line whenever the batch has moved; returns the exit code."""
    last = ""
    while True:
        seen = client.batch(batch)
        line = f"batch {batch}: {seen['state']}, {seen['done']:,} of {seen['jobs']:,} jobs"
        if line != last:
            click.echo(line)
            last = line
        if seen["finished"]:
            return 0 if seen["state"] == "COMPLETED" else EXIT_FAILED
        time.sleep(WATCH_SECONDS)


@batchsim.command()
@click.option("--sample", type=int, default=100, show_default=True, help="jobs of each batch to run again")
@setting_options
def doctor(sample: int, **options: str | None) -> None:
    """Look for violated promises: ledger against files, a sample of jobs run again. Exit code 1 if there are any."""
    configured = settings_module.load(options)
    from batchsim.doctor import examine

    problems = 0
    for line, bad in examine(configured, sample):
        click.echo(line)
        problems += bad
    sys.exit(EXIT_FAILED if problems else 0)
