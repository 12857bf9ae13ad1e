"""A simulation's parameters as options of their own: ``--sigma 0.2`` is ``--param sigma=0.2``."""

from collections.abc import Collection, Iterator

import click

from common.errors import InvalidInput

SIMULATION = "--simulation"


class WithParameters(click.Command):
    """A verb that takes each parameter of ``--simulation`` as an option, and shows them beside it in its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read options that are not the verb's own as parameters."""
        name = simulation_in(args)
        if name:
            ctx.meta[SIMULATION] = name
            own = {flag for parameter in self.get_params(ctx) for flag in (*parameter.opts, *parameter.secondary_opts)}
            args = list(as_parameters(args, own))
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters before the other options."""
        self.format_parameters(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_parameters(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters, if the simulation is known here."""
        name = ctx.meta.get(SIMULATION)
        records = list(_records(name)) if name else []
        if records:
            with formatter.section(f"Parameters of {name}, each a value, or several for a sweep"):
                formatter.write_dl(records)


def simulation_in(args: list[str]) -> str:
    """What ``--simulation`` says; "" when it is not given before ``--``."""
    args = args[: args.index("--")] if "--" in args else args
    for number, word in enumerate(args):
        if word == SIMULATION and number + 1 < len(args):
            return args[number + 1]
        if word.startswith(f"{SIMULATION}="):
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


def _records(name: str) -> Iterator[tuple[str, str]]:
    from common.simulations import registry

    try:
        schema = registry.find(name).schema()["parameters"]
    except InvalidInput:
        # On a server there may be others.
        return
    for parameter, each in schema.get("properties", {}).items():
        default = f"  [default: {each['default']}]" if "default" in each else "  [required]"
        kind = each.get("type", "value").upper()
        yield f"--{parameter.replace('_', '-')} {kind}", f"{each.get('description', '')}{default}"
