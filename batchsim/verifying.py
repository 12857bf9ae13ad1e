"""``batchsim verify``: have a server run a sample of a batch's jobs again on other workers, and compare bytes."""

import sys
import time

import click

from batchsim.client import Client
from batchsim.verbs import BATCH, EXIT_FAILED, server_options

POLL_SECONDS = 0.2
MOST_NAMED = 20


@click.command()
@click.argument("batch", type=BATCH)
@click.option("--sample", type=int, default=100, show_default=True, help="completed jobs to run again")
@server_options
def verify(batch: int, sample: int, url: str, token: str) -> None:
    """Run a sample of a batch's completed jobs again, on other workers than before. Exit code 1 if any differs."""
    client = Client(url, token)
    found = client.act(batch, "verify", sample=sample)
    while found["state"] != "DONE":
        time.sleep(POLL_SECONDS)
        found = client.verification(batch, found["id"])
    for each in found["differing"][:MOST_NAMED]:
        click.echo(f"job {each['job']} {each['why']}")
    if len(found["differing"]) > MOST_NAMED:
        click.echo(f"… and {len(found['differing']) - MOST_NAMED:,} more")
    same = f", {found['same_worker']:,} of them on the same worker" if found["same_worker"] else ""
    click.echo(f"batch {batch}: {found['checked']:,} jobs run again{same}, {len(found['differing'])} differ")
    sys.exit(EXIT_FAILED if found["differing"] else 0)
