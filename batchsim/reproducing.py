"""``batchsim reproduce``: run a batch again from its directory alone, and compare every byte."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from batchsim.watching import EXIT_FAILED
from common import outputs, planning, provenance, settings
from common.audit import compare, missing
from common.batch import BatchSpec
from common.errors import BatchSimError, InvalidInput, NotFound
from common.simulations import registry


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--sample", type=click.IntRange(min=1), help="jobs to run again; without it all of them")
@click.option("--simulations-dir", help="where its simulation lies, beside ./simulations  [default: SIMULATIONS_DIR]")
def reproduce(directory: Path, sample: int | None, simulations_dir: str | None) -> None:
    """Run the batch in DIRECTORY again, in this process alone, and compare every byte.

    Exit code 1 if any differs, if a completed job has no CSV, or if there was nothing to run.
    """
    spec = outputs.read_spec(directory)
    if spec is None:
        raise NotFound(f"There is no {outputs.SPEC_NAME} in {directory}/.")
    registry.use(settings.load({"simulations_dir": simulations_dir}).simulations_dir)
    for line in (*provenance.changes(spec.environment), *changed_defaults(spec)):
        click.echo(line)
    gone, problems = missing(directory, spec)
    try:
        again, differing = compare(directory, spec, sample=sample or spec.jobs)
    except InvalidInput as error:
        # The batch is right, and what it ran is not there as it was.
        raise BatchSimError(f"{error.message}{_where_it_was(spec, simulations_dir)}", field=error.field) from None
    for problem in (*problems, *differing, *(changed_source(spec) if differing else ())):
        click.echo(problem)
    program = provenance.own_program(spec)
    where = f"By hand, in {program.directory}" if program else "By hand"
    last = replace(spec, max_fails=outputs.read_control(directory).get("max_fails", spec.max_fails))
    by_hand = provenance.command(last, directory.absolute(), simulations_dir=simulations_dir)
    bad = gone + len(differing)
    ran = f"{again:,} jobs run again, {bad:,} differ" if again else "nothing was run again: there is no CSV to compare"
    click.echo(f"batch {spec.id}: {ran}. {where}: {by_hand}")
    sys.exit(EXIT_FAILED if bad or not again else 0)


def changed_defaults(spec: BatchSpec) -> Iterator[str]:
    """The parameters that were left to the simulation and have another default by now, in sentences."""
    try:
        simulation = registry.of(spec)
        now = planning.defaults({"parameters": spec.parameters, "sweep": spec.sweep}, simulation)
    except InvalidInput:
        # It is told when it is run.
        return
    for name, was in spec.defaults.items():
        if name in now and now[name] != was:
            yield f"{name} was not given and was {was!r} by default, here it is {now[name]!r}"


def changed_source(spec: BatchSpec) -> Iterator[str]:
    """What may have changed since, of a batch whose version does not say so, in sentences."""
    if spec.program:
        yield "A file that the program reads or imports, and that no word of its command names, may have changed"
    was, now = spec.environment.get("source"), registry.of(spec).version
    if was and now and was != now:
        yield f"The source of {spec.simulation} was {was}, here it is {now}"


def _where_it_was(spec: BatchSpec, given: str | None) -> str:
    directory = spec.environment.get("simulations_dir")
    return f"; it was run with --simulations-dir {directory}" if directory and given is None else ""
