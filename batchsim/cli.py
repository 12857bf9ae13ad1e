"""The command ``batchsim``. Every setting is an option; ``--help`` of a verb lists them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from batchsim import programs, sweeping, verbs
from batchsim.reproducing import reproduce
from batchsim.verifying import verify
from common import settings as settings_module
from common.errors import InvalidInput
from common.options import DEFAULTS, Options, read_options
from common.settings import SECRETS, Settings
from common.simulations.described import Kinds, kinds_of
from common.spelling import Kind, Takes

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


class Run(programs.WithProgram):
    """``batchsim run``."""

    # All that makes a batch: none of it can be given again when one is resumed.
    groups = (
        ("What is run", ("simulation", *programs.NAMES)),
        ("How many jobs, with which parameters", ("jobs", "num_jobs", "seed", "resume", *sweeping.NAMES)),
        ("What the batch may do", tuple(Options.model_fields)),
    )


@batchsim.command(cls=Run)
@click.option("--resume", is_flag=True, help="go on with the batch in OUTPUT_DIR: run only what is missing")
@click.option("--jobs", help="as --num-jobs")
@programs.program_options
@sweeping.sweep_options
@verbs.batch_options
@setting_options
def run(resume: bool, jobs: str | None, **given: Any) -> None:
    """Run NUM_JOBS jobs, or a sweep, on this machine, show the progress, write the CSVs, and exit.

    A job is a call of a simulation, or a run of the PROGRAM after --; in its ARGUMENTS {seed}, {index} and {NAME} of
    each --param stand for the job's own. Each parameter of --simulation is an option, too: --sigma 0.1,0.2 is
    --param sigma=0.1,0.2; --simulation NAME --help lists them.
    """
    if resume:
        _refuse_changes({**given, "jobs": jobs})
    chosen = programs.read(given)
    number = jobs or given.get("num_jobs")
    configured = settings_module.load({**given, "num_jobs": number})
    batch = verbs.batch_fields(given, kinds(chosen, given["simulation"], configured))
    if chosen is not None:
        batch = chosen.options(batch)
    options = read_options(batch)
    if options.dependency and not configured.redis_url:
        raise InvalidInput(
            "dependency: `batchsim run` has a private Redis, in which there is no other batch. Submit to a server "
            "(`batchsim submit`), set REDIS_URL to one that has them, or give --dependency ''",
            field="dependency",
        )
    if options.until and number is None and not options.sweep and chosen is None and "NUM_JOBS" not in os.environ:
        raise InvalidInput("until: give --jobs, too: as many as may be run at most", field="until")
    asked = configured.num_jobs if number else None
    if chosen is not None:
        chosen = _prepared(chosen, options, asked)
    elif asked is not None and options.sweep:
        _check_size(asked, options, configured)
    from services.local.run import run as run_embedded

    program, outputs = (chosen.program, chosen.outputs) if chosen else (None, ())
    sys.exit(
        run_embedded(
            configured, resume=resume, jobs=asked, options=options, program=program, outputs_of_program=outputs
        )
    )


def _refuse_changes(given: dict[str, Any]) -> None:
    """A batch that is resumed is as it was. Raises :class:`InvalidInput` that names the option to leave out."""
    own = {name for _, names in Run.groups for name in names} | {"job_seconds"}
    for option in click.get_current_context().command.params:
        value = given.get(str(option.name))
        if option.name in own and not (value is None or value is False or value == ()):
            word = "the program" if option.name == "words" else max(option.opts, key=len)
            raise InvalidInput(f"--resume goes on with the batch as it was: leave {word} out", field=option.name)


def kinds(chosen: programs.Chosen | None, simulation: str | None, configured: Settings) -> Kinds:
    """What each parameter of what is run takes; a simulation is looked up when the first one is asked for.

    Raises :class:`InvalidInput` then when there is none of that name.
    """
    if chosen is not None:
        return lambda _name: Takes(Kind.TYPED)

    def schema() -> dict[str, Any]:
        # Only when there are parameters: what is imported here takes as long as the worker does to start.
        from common.simulations import registry

        registry.use(configured.simulations_dir)
        found: dict[str, Any] = registry.find(simulation or DEFAULTS.simulation).schema()["parameters"]
        return found

    return kinds_of(schema)


def _check_size(jobs: int, options: Options, configured: Settings) -> None:
    """See that a sweep has as many jobs as were asked for, before anything is started."""
    from common import planning
    from common.simulations import registry

    registry.use(configured.simulations_dir)
    planning.size(jobs, options, planning.simulation_of(options))


def _prepared(chosen: programs.Chosen, options: Options, jobs: int | None) -> programs.Chosen:
    """See that the batch can be run, before anything is started."""
    from common import planning

    for line in chosen.warnings:
        click.echo(f"batchsim: {line}", err=True)
    chosen = programs.stamp(chosen)
    simulation = planning.simulation_of(options, chosen.program, chosen.outputs)
    known = jobs is not None or planning.says_size(options, simulation)
    planning.fields(options, planning.size(jobs, options, simulation) if known else 1, simulation)
    return chosen


@batchsim.command()
@setting_options
def serve(**options: str | None) -> None:
    """Serve API, page, workers and Flower on this machine until Ctrl-C; runs NUM_JOBS jobs first."""
    configured = settings_module.load(options)
    from services.local.serve import serve as serve_embedded

    sys.exit(serve_embedded(configured))


@batchsim.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--batch", type=verbs.BATCH, help="its id; without one the start-up batch")
@setting_options
def export(target: Path, batch: int | None, **options: str | None) -> None:
    """Write the CSVs of a batch in OUTPUT_DIR into the directory TARGET, one file a job, also of packed outputs."""
    configured = settings_module.load(options)
    from common import outputs, results
    from common.errors import NotFound, StorageUnavailable

    root = configured.output_dir
    # The start-up batch has a number, too, and lies in the directory itself.
    places = [root] if batch is None else [root / str(batch), root]
    found = [(place, spec) for place in places if (spec := outputs.read_spec(place)) and batch in (None, spec.id)]
    if not found:
        raise NotFound(f"There is no batch in {places[0]}/.")
    place, spec = found[0]
    try:
        click.echo(f"{results.export(place, spec, target):,} files in {target}/")
    except OSError as error:
        raise StorageUnavailable(f"{error.filename or target}: {error.strerror}") from None


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


for verb in (*verbs.VERBS, verify, reproduce):
    batchsim.add_command(verb)
