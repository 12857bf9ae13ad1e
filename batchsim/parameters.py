"""A simulation's parameters as options of their own: ``--sigma 0.2`` is ``--param sigma=0.2``."""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

import click

from common import settings
from common.errors import InvalidInput
from common.simulations.described import describe

SIMULATION = "--simulation"
DIRECTORY = "--simulations-dir"
_METAVARS = {"any": "VALUE", "array": "JSON", "object": "JSON"}


class WithParameters(click.Command):
    """A verb that takes each parameter of ``--simulation`` as an option, and shows them beside it in its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read options that are not the verb's own as parameters."""
        name = value_in(args, SIMULATION)
        if name:
            own = self._flags(ctx)
            ctx.meta[SIMULATION] = name
            # Click answers --help before it has read the others.
            ctx.meta[DIRECTORY] = value_in(args, DIRECTORY) if DIRECTORY in own else ""
            args = list(as_parameters(args, own))
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            said = error.message + _advice(error.option_name)
            raise click.NoSuchOption(error.option_name, said, error.possibilities, error.ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters before the other options."""
        self.format_parameters(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_parameters(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters, if the simulation is known here."""
        name = ctx.meta.get(SIMULATION)
        records = list(_records(name, ctx.meta[DIRECTORY], self._flags(ctx))) if name else []
        if records:
            with formatter.section(f"Parameters of {name}, each a value, or several for a sweep"):
                formatter.write_dl(records)

    def _flags(self, ctx: click.Context) -> set[str]:
        return {flag for parameter in self.get_params(ctx) for flag in (*parameter.opts, *parameter.secondary_opts)}


def _advice(flag: str) -> str:
    """What to write if that was to be a parameter; without ``--simulation`` none is an option."""
    name = flag[2:].replace("-", "_")
    if not flag.startswith("--") or not name.isidentifier():
        return ""
    return (
        f" If it is a parameter: --param {name}=1, or --param {name}=1,2 for a sweep; of a --simulation NAME, "
        f"{flag} 1,2 says the same."
    )


def value_in(args: list[str], flag: str) -> str:
    """What an option says, such as ``--simulation``; "" when it is not given before ``--``."""
    args = args[: args.index("--")] if "--" in args else args
    for number, word in enumerate(args):
        if word == flag and number + 1 < len(args):
            return args[number + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return ""


def as_parameters(args: list[str], own: Collection[str]) -> Iterator[str]:
    """The words of a command line; options that are not among ``own`` as ``--param NAME=VALUES``.

    Raises :class:`click.UsageError` when one has no value.
    """
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if word == "--" or not flag.startswith("--") or flag in own:
            yield word
            if word == "--":
                yield from words
            continue
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise click.UsageError(f"{flag} is no option; as a parameter of the simulation it needs a value")
            value = following
        yield from ("--param", f"{flag[2:].replace('-', '_')}={value}")


def _records(name: str, directory: str, own: Collection[str]) -> Iterator[tuple[str, str]]:
    """Each parameter and what it is; one whose option the verb has itself, as it must be written then."""
    from common.simulations import registry

    registry.use(directory or _configured_directory())
    try:
        schema = registry.find(name).schema()["parameters"]
    except InvalidInput:
        # On a server there may be others.
        return
    for each in describe(schema):
        values = (
            f"[{'|'.join(map(_shown, each.choices))}]" if each.choices else _METAVARS.get(each.type, each.type.upper())
        )
        flag = f"--{each.name.replace('_', '-')}"
        default = "[required]" if each.required else f"[default: {_shown(each.default)}]"
        yield (
            f"--param {each.name}={values}" if flag in own else f"{flag} {values}",
            f"{each.description}  {default}",
        )


def _configured_directory() -> str:
    # Help is given whatever is wrong with the settings.
    with suppress(InvalidInput):
        return settings.load().simulations_dir
    return ""


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
