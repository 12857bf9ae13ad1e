"""The command ``batchsim``. Every setting is an option; ``--help`` of a verb lists them."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from common import settings as settings_module
from common.errors import BatchSimError, InvalidInput
from common.settings import SECRETS, Settings

EXIT_USAGE = 2
EXIT_FAILED = 1

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
@setting_options
def run(**options: str | None) -> None:
    """Run NUM_JOBS jobs on this machine, show the progress, write the CSVs, and exit."""
    configured = settings_module.load(options)
    from services.local.run import run as run_embedded

    sys.exit(run_embedded(configured))


@batchsim.command()
@setting_options
def serve(**options: str | None) -> None:
    """Serve API, page, workers and Flower on this machine until Ctrl-C; runs NUM_JOBS jobs first."""
    configured = settings_module.load(options)
    from services.local.serve import serve as serve_embedded

    sys.exit(serve_embedded(configured))


def main() -> None:
    """Entry point: an error of ours is one line and an exit code, never a traceback."""
    try:
        batchsim()
    except BatchSimError as error:
        click.echo(f"batchsim: {error.message}", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, InvalidInput) else EXIT_FAILED)


if __name__ == "__main__":
    main()
