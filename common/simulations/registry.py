"""Which simulations there are: built in, in the user's own files, and in installed packages.

A file is any ``.py`` in ``simulations/`` of the working directory or in ``SIMULATIONS_DIR``; it needs only the
decorator of :mod:`common.simulations.declare`. Programs are declared in ``simulations.toml`` there or in the working
directory: see :mod:`common.simulations.tables`. What cannot be read is reported and takes nothing else down.
"""

import hashlib
import importlib
import os
import sys
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from common.batch import BatchSpec
from common.errors import InvalidInput
from common.programs.files import check_version
from common.programs.program import Program
from common.simulations.declare import MARK, Simulation
from common.simulations.programs import of_program
from common.simulations.tables import from_tables

BUILT_IN = (
    "random_numbers",
    "monte_carlo_pi",
    "european_option",
    "mmc_queue",
    "random_walk",
    "ising_2d",
    "sir_epidemic",
    "percolation",
    "faulty",
)
GROUP = "hpc_batch_sim.simulations"
VARIABLE = "SIMULATIONS_DIR"
FOLDER = "simulations"

# What the process's settings name; without it the environment's.
_chosen: list[Path] = []

# File → (what its stat said, its simulations, why it cannot be imported).
_files: dict[Path, tuple[tuple[int, int], list[Simulation], str]] = {}


@dataclass
class Registry:
    """All simulations by name, and the files that could not be imported with their tracebacks."""

    found: dict[str, Simulation] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def find(name: str) -> Simulation:
    """The simulation of this name as it is now. Raises :class:`InvalidInput` that lists what there is."""
    if name in BUILT_IN:
        return built_in(name)
    registry = everything()
    if name not in registry.found:
        text = f"simulation is {name!r}; there are {', '.join(registry.found)}"
        if registry.broken:
            last = {path: error.strip().splitlines()[-1] for path, error in registry.broken.items()}
            text += "; not to be imported: " + ", ".join(f"{path} ({error})" for path, error in last.items())
        raise InvalidInput(text, field="simulation")
    return registry.found[name]


def built_in(name: str) -> Simulation:
    """A simulation of our own; its module has its name."""
    function = getattr(importlib.import_module(f"common.simulations.{name}"), name)
    declared: Simulation = getattr(function, MARK)
    return declared


def of(spec: BatchSpec) -> Simulation:
    """What a batch runs. Raises :class:`InvalidInput` when it is not there, or is another version."""
    if spec.program and not spec.version:
        program = Program.from_dict(spec.program)
        check_version(program)
        return of_program(spec.simulation, program, spec.outputs)
    found = find(spec.simulation)
    if spec.version and found.version != spec.version:
        raise InvalidInput(
            f"simulation {spec.simulation} is version {found.version} here; the batch needs {spec.version}",
            field="simulation",
        )
    return found


def everything() -> Registry:
    """Every simulation; the first of two with one name stays, and the other is reported."""
    registry = Registry({name: built_in(name) for name in BUILT_IN})
    for origin, declared, error in _own():
        if error:
            registry.broken[origin] = error
        for each in declared:
            if each.name in registry.found:
                other = registry.found[each.name].origin or "built in"
                registry.broken[origin] = f"{each.name} is there already: {other}"
            else:
                registry.found[each.name] = each
    return registry


def capabilities() -> list[str]:
    """``name:version`` of all that is not built in: what a worker says that it can run besides."""
    return [f"{each.name}:{each.version}" for each in everything().found.values() if each.name not in BUILT_IN]


def use(directory: str | Path | None) -> None:
    """Look for the user's files there too, whatever the environment says; None: as the environment says."""
    _chosen[:] = [Path(directory).resolve()] if directory else []


def directories() -> list[Path]:
    """Where the user's files may lie."""
    given = os.environ.get(VARIABLE, "")
    return [Path(FOLDER).resolve(), *(_chosen or ([Path(given).resolve()] if given else []))]


def _own() -> Iterator[tuple[str, list[Simulation], str]]:
    """All that is not built in: where it stands, what it declares, and why it declares nothing."""
    yield from _from_files()
    for place in dict.fromkeys([Path.cwd(), *directories()]):
        yield from from_tables(place)
    yield from _from_packages()


def _from_files() -> Iterator[tuple[str, list[Simulation], str]]:
    for place in dict.fromkeys(directories()):
        for path in sorted(place.glob("*.py")) if place.is_dir() else ():
            yield str(path), *_load(path)


def _load(path: Path) -> tuple[list[Simulation], str]:
    """The simulations of a file as it is now; read again only when it has changed."""
    try:
        seen = path.stat()
        mark = (seen.st_mtime_ns, seen.st_size)
        if path in _files and _files[path][0] == mark:
            return _files[path][1], _files[path][2]
        declared, error = _execute(path, path.read_bytes())
    except OSError as problem:
        return [], f"{path}: {problem.strerror}"
    _files[path] = (mark, declared, error)
    return declared, error


def _execute(path: Path, source: bytes) -> tuple[list[Simulation], str]:
    version = hashlib.sha256(source).hexdigest()[:16]
    # A name of its own for each version: what runs keeps the code that it began with.
    module = types.ModuleType(f"batchsim_simulations.{path.stem}_{version}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - running the user's file is the purpose
    except (Exception, SystemExit):  # noqa: BLE001 - whatever it raises is reported with its traceback
        return [], traceback.format_exc()
    return [_of(each, version, str(path)) for each in _declared(module)], ""


def _declared(module: types.ModuleType) -> list[Simulation]:
    found = [getattr(value, MARK) for value in vars(module).values() if hasattr(value, MARK)]
    return [each for each in found if each.function.__module__ in (module.__name__, "builtins")]


def _of(declared: Simulation, version: str, origin: str) -> Simulation:
    return replace(declared, version=version, origin=origin)


@cache
def _from_packages() -> list[tuple[str, list[Simulation], str]]:
    return list(_load_packages())


def _load_packages() -> Iterator[tuple[str, list[Simulation], str]]:
    for entry in entry_points(group=GROUP):
        origin = f"{entry.dist.name if entry.dist else ''}: {entry.value}"
        try:
            declared: Simulation = getattr(entry.load(), MARK)
            yield origin, [_of(declared, declared.version, origin)], ""
        except Exception:  # noqa: BLE001 - a package of somebody else
            yield origin, [], traceback.format_exc()
