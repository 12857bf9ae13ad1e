"""Where a batch comes from: what was installed, on what kind of machine, and the command that repeats it."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path, PurePath
from typing import Any

from common.batch import BatchSpec
from common.options import DEFAULTS, Options
from common.outputs import SPEC_NAME
from common.programs.admission import MOST_NAME_CHARACTERS
from common.programs.files import literal
from common.programs.program import DEFAULT_STDERR, DEFAULT_STDOUT, Program
from common.simulations import registry
from common.simulations.declare import Simulation
from common.spelling import Kind, parse_values

# What can change a result's bytes, or how it came about.
PACKAGES = ("hpc-batch-sim", "numpy", "celery", "redis", "pydantic")
# The modules of those of them that a simulation imports, and our own.
OURS = {"numpy", "pydantic", "batchsim", "common", "services"}
# What does not belong to a batch that runs alone, and what is written otherwise.
LEFT_OUT = ("parameters", "sweep", "dependency", "kill_on_invalid_dependency", "hold", "partition")
# A longer sweep is taken from its file.
MOST_AXES, MOST_VALUES = 20, 100
IMAGE_VARIABLE = "IMAGE_DIGEST"
HOST = ("python", "platform", "image")


def environment(simulation: Simulation) -> dict[str, Any]:
    """Python, packages, platform, in a container that says so the image; and where what is run comes from.

    The packages are ours and those that the simulation's source imports; ``source`` is its hash, of a program that of
    its files. ``simulations_dir`` is the directory that had to be named for it to be found.
    """
    found = _here()
    packages = {name: _version(name) for name in sorted(_distributions(registry.imports(simulation)))}
    program = simulation.program
    source = simulation.version or (program.version if program else "")
    directory = registry.directory_of(simulation)
    return {
        **found,
        "packages": {**packages, **found["packages"]},
        "source": source,
        **({"simulations_dir": directory} if directory else {}),
    }


@cache
def _here() -> dict[str, Any]:
    found = {
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
    }
    image = os.environ.get(IMAGE_VARIABLE)
    return found | ({"image": image} if image else {})


def changes(before: Mapping[str, Any]) -> list[str]:
    """What of an :func:`environment` that was is otherwise here, in sentences; the source is left to whoever asks."""
    here = _here()
    # In no container there is no image to compare with.
    pairs = [(name, before[name], here[name]) for name in HOST if name in before and name in here]
    pairs += [(name, was, _version(name)) for name, was in sorted(before.get("packages", {}).items())]
    return [f"{name} was {was}, here it is {now}" for name, was, now in pairs if was != now]


def _distributions(modules: Iterable[str]) -> set[str]:
    """What has to be installed for these top-level modules to be there, besides what is named always."""
    others = set(modules) - sys.stdlib_module_names - OURS
    return {name for module in others for name in _providers().get(module, ())} if others else set()


@cache
def _providers() -> Mapping[str, list[str]]:
    # Looks at every file of every package: done once, and not at all when nothing else is imported.
    return packages_distributions()


def command(spec: BatchSpec, place: Path | None = None, *, simulations_dir: str | None = None) -> str:
    """The exact command that runs the batch again; of a program, in its ``directory``.

    What a command line cannot hold, such as a list of points, it takes from the ``batch.json`` in ``place``, which is
    where the batch lies. ``simulations_dir`` is where its simulation is found; None: where it was.
    """
    program = own_program(spec)
    words = ["batchsim", "run", "--seed", str(spec.seed)]
    directory = spec.environment.get("simulations_dir", "") if simulations_dir is None else simulations_dir
    words += ["--simulations-dir", str(directory)] if directory and not program else []
    words += ["--array", program.array] if program and program.array else []
    if not spec.sweep and not (program and program.array):
        words += ["--jobs", str(spec.jobs)]
    if spec.job_seconds:
        words += ["--job-seconds", repr(spec.job_seconds)]
    for name in Options.model_fields:
        value = getattr(spec, name)
        if name in LEFT_OUT or value == getattr(DEFAULTS, name) or (program and name == "simulation"):
            continue
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    file = (place or default_place(spec)) / SPEC_NAME
    parameters = _parameter_words(spec, (Kind.TYPED,) if program else (Kind.ANY, Kind.NUMBER, Kind.TEXT))
    words += ["--from-json", str(file)] if parameters is None else parameters
    return shlex.join(words + (_program_words(program, spec.outputs) if program else []))


def own_program(spec: BatchSpec) -> Program | None:
    """The program that a command line named; None for simulations, and for programs that ``simulations.toml`` names."""
    return Program.from_dict(spec.program) if spec.program and not spec.version else None


def default_place(spec: BatchSpec) -> Path:
    """Where a batch lies when OUTPUT_DIR is what it is by default."""
    return Path("outputs") if spec.startup else Path("outputs") / str(spec.id)


def _parameter_words(spec: BatchSpec, kinds: Sequence[Kind]) -> list[str] | None:
    """The parameters and the sweep as options, whichever of ``kinds`` each is; None when only a file can hold them."""
    sweep = spec.sweep
    axes = sweep.get("axes", {})
    if len(axes) > MOST_AXES or any(len(values) > MOST_VALUES for values in axes.values()):
        return None
    if sweep and sweep["mode"] == "points" and sweep["points"] != [{}]:
        return None
    words = []
    for name, values in [*((name, [value]) for name, value in spec.parameters.items()), *axes.items()]:
        text = _text(values, kinds)
        if text is None:
            return None
        words += ["--param", f"{name}={text}"]
    if sweep:
        words += ["--zip"] if sweep["mode"] == "zip" else []
        words += ["--replications", str(sweep["replications"])]
        words += ["--common-random-numbers"] if sweep["common_random_numbers"] else []
    return words


def _text(values: Sequence[Any], kinds: Sequence[Kind]) -> str | None:
    """Values as ``--param`` reads them, one that would be read as something else as JSON; None when none of it does."""
    written = [value if isinstance(value, str) else json.dumps(value) for value in values]
    candidates = [",".join(written), *([json.dumps(values[0])] if len(values) == 1 else [])]
    numbers = not any(isinstance(value, str) for value in values)
    # A number is of no parameter that takes a text.
    asked = [kind for kind in kinds if not (numbers and kind is Kind.TEXT)]
    return next((text for text in candidates if all(_reads(text, kind, values) for kind in asked)), None)


def _reads(text: str, kind: Kind, values: Sequence[Any]) -> bool:
    try:
        # Unlike the values themselves, 1 and 1.0 and true differ as JSON.
        wanted = json.dumps(list(values))
        # Whether its parameter can be None, which a program's cannot, or not.
        readings = [parse_values(text, kind, none=none) for none in {False, kind is not Kind.TYPED}]
        return all(json.dumps(reading) == wanted for reading in readings)
    except ValueError:
        return False


def _program_words(program: Program, outputs: Sequence[str]) -> list[str]:
    own = "shell" if program.shell else PurePath(literal(program.command[0]) or "").name[:MOST_NAME_CHARACTERS]
    usual = program.stdout if program.stdout != DEFAULT_STDOUT else DEFAULT_STDERR
    words = ["--outputs", ",".join(outputs)] if outputs else []
    words += ["--job-name", program.name] if program.name != own else []
    words += ["--stdout", program.stdout] if program.stdout != DEFAULT_STDOUT else []
    words += ["--stderr", program.stderr] if program.stderr != usual else []
    return [*words, "--shell", program.command[0]] if program.shell else [*words, "--", *program.command]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
