"""``batchsim verify``: have a server run a sample of a batch's jobs again on other workers, and compare bytes."""

import sys
import time

import click

from batchsim.client import Client
from batchsim.verbs import BATCH, server_options
from batchsim.watching import EXIT_FAILED

POLL_SECONDS = 0.2
MOST_NAMED = 20


@click.command()
@click.argument("batch", type=BATCH)
@click.option("--sample", type=int, default=100, show_default=True, help="completed jobs to run again")
@server_options
def verify(batch: int, sample: int, url: str, token: str) -> None:
    """Run a sample of a batch's completed jobs again, on other workers than before.

    Exit code 1 if any differs or is left unchecked.
    """
    client = Client(url, token)
    found = client.act(batch, "verify", sample=sample)
    while found["state"] != "DONE":
        time.sleep(POLL_SECONDS)
        found = client.verification(batch, found["id"])
    named = found["differing"] + found["lost"]
    for each in named[:MOST_NAMED]:
        click.echo(f"job {each['job']} {each['why']}")
    if len(named) > MOST_NAMED:
        click.echo(f"… and {len(named) - MOST_NAMED:,} more")
    same = f", {found['same_worker']:,} of them on the same worker" if found["same_worker"] else ""
    unchecked = found["sample"] - found["checked"]
    rest = f", {unchecked:,} not checked because their process was lost" if unchecked else ""
    click.echo(f"batch {batch}: {found['checked']:,} jobs run again{same}, {len(found['differing'])} differ{rest}")
    sys.exit(EXIT_FAILED if found["differing"] or unchecked else 0)
