"""Programs on the command line: ``batchsim run --array 1-1000 -- ./model --seed {seed}``, and ``sbatch`` scripts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, TypeVar

import click

from batchsim.parameters import SIMULATION, WithParameters, value_in
from common.errors import InvalidInput
from common.programs.admission import MOST_NAME_CHARACTERS, check_name
from common.programs.array import ArrayIndices
from common.programs.files import quoted, stamped
from common.programs.program import DEFAULT_STDERR, DEFAULT_STDOUT, Program
from common.programs.script import Script, read_script

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("words", "script", "shell", "array", "outputs", "job_name", "stdout", "stderr")


@dataclass(frozen=True)
class Chosen:
    """A program as somebody asked for it."""

    program: Program
    outputs: tuple[str, ...] = ()
    #: What its script asks of the batch; the command line's own options come before it.
    defaults: dict[str, Any] = field(default_factory=dict)
    #: Most jobs at a time by ``--array``; 0: it says nothing.
    throttle: int = 0
    warnings: tuple[str, ...] = ()

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """The batch's fields: those that were given, then the script's. Raises :class:`InvalidInput`."""
        if "simulation" in given:
            raise InvalidInput("give a program or --simulation, not both", field="simulation")
        if self.throttle and given.get("throttle", self.throttle) != self.throttle:
            raise InvalidInput(
                f"--array says %{self.throttle} and --throttle says {given['throttle']}; give one of them",
                field="throttle",
            )
        own = {"throttle": self.throttle} if self.throttle else {}
        return {**self.defaults, **own, **given, "simulation": self.program.name}


def program_options(function: F) -> F:
    """Give a verb the options that :func:`read` takes."""
    for option in (
        click.option("--stderr", metavar="PATTERN", help=f"log of stderr, likewise  [default: {DEFAULT_STDERR}]"),
        click.option(
            "--stdout",
            metavar="PATTERN",
            help="log of stdout under logs/: %A batch, %a array index, %j both, %x job name; /dev/null keeps none"
            f"  [default: {DEFAULT_STDOUT}]",
        ),
        click.option("--job-name", metavar="NAME", help="its name  [default: that of the program]"),
        click.option("--outputs", metavar="NAMES", help="numbers that each job must give: energy,magnetisation"),
        click.option("--array", metavar="INDICES", help="a job for each index: 1-1000, 0-90:10, 1,5,9, 1-100%4"),
        click.option("--shell", metavar="LINE", help="run this line by /bin/sh instead of a program"),
        click.option("--script", metavar="FILE", help="run a script; its #SBATCH lines are defaults of these options"),
        click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- PROGRAM [ARGUMENTS]...]"),
    ):
        function = option(function)
    return function


def read(given: dict[str, Any]) -> Chosen | None:
    """Take the options of :func:`program_options` out of all that were given; None when there is no program.

    Raises :class:`InvalidInput` that names the option.
    """
    own = {name: given.pop(name) for name in NAMES}
    words, script, shell = own.pop("words"), own.pop("script"), own.pop("shell")
    if not words and script is None and shell is None:
        idle = next((name for name, value in own.items() if value is not None), "")
        if idle:
            flag = f"--{idle.replace('_', '-')}"
            raise InvalidInput(f"{flag} is for programs: write -- and a program, or --script FILE", field=idle)
        return None
    if shell is not None and (words or script is not None):
        raise InvalidInput("give --shell, --script or a program after --, one of them", field="shell")
    return _chosen(tuple(words), script, shell, **own)


def _chosen(
    words: tuple[str, ...],
    script: str | None,
    shell: str | None,
    array: str | None,
    outputs: str | None,
    job_name: str | None,
    stdout: str | None,
    stderr: str | None,
) -> Chosen:
    asked = read_script(Path(script)) if script is not None else Script(())
    if script is not None:
        path = script if "/" in script else f"./{script}"
        words = (*map(quoted, asked.interpreter), quoted(path), *words)
    name = PurePath(script or ("shell" if shell is not None else words[0])).name
    written = asked.array if array is None else array
    indices = ArrayIndices.parse(written) if written or array is not None else None
    program = Program(
        (shell,) if shell is not None else words,
        str(Path.cwd()),
        array=indices.text if indices else "",
        name=job_name or asked.job_name or name[:MOST_NAME_CHARACTERS],
        stdout=stdout or asked.stdout or DEFAULT_STDOUT,
        # In Slurm both go to one file when only that of the first is named.
        stderr=stderr or asked.stderr or stdout or asked.stdout or DEFAULT_STDERR,
        shell=shell is not None,
    )
    check_name(program.name)
    defaults = dict(asked.options)
    throttle = indices.throttle if indices else 0
    if array is None and throttle:
        defaults["throttle"] = throttle
    return Chosen(
        program,
        tuple(name.strip() for name in outputs.split(",")) if outputs else (),
        defaults,
        0 if array is None else throttle,
        asked.warnings,
    )


def stamp(chosen: Chosen) -> Chosen:
    """With the version that the program's files make; the last step, since it reads them."""
    return replace(chosen, program=stamped(chosen.program))


class WithoutProgram(WithParameters):
    """A verb that talks to a server, which starts no program that a client names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As ever, but say what can be done instead to who wants a program."""
        end = args.index("--") if "--" in args else len(args)
        # Of a simulation they can be parameters.
        flags = {word.partition("=")[0] for word in args[:end]} if not value_in(args, SIMULATION) else set()
        wanted = [flag for name in NAMES[1:] if (flag := f"--{name.replace('_', '-')}") in flags]
        if wanted or args[end + 1 :]:
            what = wanted[0] if wanted else f"-- {args[end + 1]}"
            raise InvalidInput(
                f"{what}: over HTTP only programs can be started that the server's operator has declared in "
                f"simulations.toml: `batchsim {ctx.info_name} --simulation NAME`, and `batchsim simulations` lists "
                "them. Scripts and commands of your own run on this machine: `batchsim run`",
                field=NAMES[0],
            )
        return super().parse_args(ctx, args)


class WithProgram(WithParameters):
    """A verb that takes a program after ``--``, and shows its many options in groups."""

    #: Heading → names of the options under it; the others come last.
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As ever, but a stray word is no program."""
        separated = "--" in args
        rest = super().parse_args(ctx, args)
        words = ctx.params.get("words", ())
        if words and not separated and not ctx.params.get("script"):
            raise click.UsageError(f"{words[0]!r} is not an option; a program comes after --: -- {words[0]}", ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups."""
        self.format_parameters(ctx, formatter)
        left = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        for heading, names in (*self.groups, ("Settings", tuple(str(each.name) for each in left))):
            here = [parameter for parameter in left if parameter.name in names]
            left = [parameter for parameter in left if parameter not in here]
            records = [record for parameter in here if (record := parameter.get_help_record(ctx))]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
