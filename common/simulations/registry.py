"""Which simulations there are: built in, in the user's own files, and in installed packages.

A file is any ``.py`` in ``simulations/`` of the working directory or in ``SIMULATIONS_DIR``; it needs only the
decorator of :mod:`common.simulations.declare`, and can import modules beside it: see
:mod:`common.simulations.neighbours`. Programs are declared in ``simulations.toml`` there or in the working
directory: see :mod:`common.simulations.tables`. What cannot be read is reported and takes nothing else down.
"""

import difflib
import importlib
import inspect
import os
import sys
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from common.batch import BatchSpec
from common.errors import InvalidInput
from common.programs.files import check_version
from common.programs.program import Program
from common.simulations import neighbours
from common.simulations.declare import MARK, Simulation
from common.simulations.programs import of_program
from common.simulations.reasons import place_and_reason
from common.simulations.tables import FILE, from_tables

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

# What the process's settings name, as given and as it was then; without it the environment's.
_chosen: list[Path] = []
# Directory → how it was given, for people.
_given: dict[Path, str] = {}


@dataclass(frozen=True)
class _Loaded:
    """A file as it was read: what it declares, and why it cannot be imported."""

    source: neighbours.Source
    declared: list[Simulation]
    error: str


_files: dict[Path, _Loaded] = {}


@dataclass
class Registry:
    """What there is: ``found`` by name, all that a batch can be submitted of; ``broken``, what cannot be used and why.

    ``every`` has besides those whose name stands for two, which a batch that was submitted before may still need.
    """

    found: dict[str, Simulation] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    every: dict[str, list[Simulation]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What clients are told: ``{"simulations": [schema, …], "broken": {place: reason}}``."""
        return {"simulations": [each.schema() for each in self.found.values()], "broken": self.broken}

    def add(self, each: Simulation) -> None:
        """Take a simulation in; one whose name another has is reported, and then ``found`` has neither."""
        others = self.every.setdefault(each.name, [])
        if any(other.version == each.version and other.origin != each.origin for other in others):
            # The same file in two places.
            return
        others.append(each)
        if len(others) == 1:
            self.found[each.name] = each
            return
        self.found.pop(each.name, None)
        name = f"[{each.name}]"
        key = each.origin if each.origin.endswith(name) else f"{each.origin} {name}"
        twice = each.origin == others[0].origin
        self.broken[key] = (
            f"{each.name} is {'declared here twice' if twice else 'also ' + _whereabouts(others[0])}: batches of that "
            "name are refused until one is renamed; what else is in this file can be used"
        )


def find(name: str) -> Simulation:
    """The simulation of this name as it is now.

    Raises :class:`InvalidInput` that lists what there is, and where it was looked for; or where all of this name are,
    when it has several.
    """
    registry = everything()
    if name in registry.found:
        return registry.found[name]
    if name in registry.every:
        places = " and ".join(dict.fromkeys(_whereabouts(each) for each in registry.every[name]))
        raise InvalidInput(
            f"simulation {name!r} stands for several: it is {places}; rename all but one of them", field="simulation"
        )
    raise InvalidInput(_unknown(name, registry), field="simulation")


def _unknown(name: str, registry: Registry) -> str:
    """There is none of this name: what there is instead, what is called nearly so, and where we have looked."""
    text = f"simulation is {name!r:.100}; there are {', '.join(registry.found)}"
    if registry.broken:
        told = (place_and_reason(path, error) for path, error in registry.broken.items())
        text += "; not to be used: " + ", ".join(f"{place} ({reason})" for place, reason in told)
    close = difflib.get_close_matches(name[:100], registry.found)
    asked = f"Did you mean {' or '.join(close)}? " if close else ""
    places = [f"{place}{'' if place.is_dir() else ' (not there)'}" for place in dict.fromkeys(directories())]
    another = f"; {VARIABLE} names another directory" if len(places) == 1 else ""
    where = f"{' and '.join(places)}, and in {FILE} there and in {Path.cwd()}{another}"
    return f"{text}. {asked}Looked for in {where}"


def _whereabouts(each: Simulation) -> str:
    return f"in {each.origin}" if each.origin else "built in"


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
    if not spec.version:
        return built_in(spec.simulation) if spec.simulation in BUILT_IN else find(spec.simulation)
    # By the version: of several of this name, the batch has one.
    same = everything().every.get(spec.simulation) or [find(spec.simulation)]
    for each in same:
        if each.version == spec.version:
            return each
    here = " and ".join(each.version for each in same)
    raise InvalidInput(
        f"simulation {spec.simulation} is version {here} here; the batch needs {spec.version}", field="simulation"
    )


def everything() -> Registry:
    """Every simulation. What two have the name of is reported, and neither is offered for new batches."""
    registry = Registry()
    for name in BUILT_IN:
        registry.add(built_in(name))
    for origin, declared, error in _own():
        if error:
            registry.broken[origin] = error
        for each in declared:
            registry.add(each)
    return registry


def capabilities() -> list[str]:
    """``name:version`` of all that is not built in: what a worker says that it can run besides.

    Those that share a name are among them, since :func:`of` tells them apart by the version.
    """
    every = everything().every.values()
    return list(dict.fromkeys(f"{each.name}:{each.version}" for same in every for each in same if each.origin))


def imports(simulation: Simulation) -> frozenset[str]:
    """Top-level names of what its file and the modules beside it import; none of a program."""
    if simulation.program is not None:
        return frozenset()
    loaded = _files.get(Path(simulation.origin))
    if loaded is not None:
        return loaded.source.imports
    name = simulation.function.__module__
    try:
        source = inspect.getsource(sys.modules[name])
    except (OSError, TypeError, KeyError):
        source = ""
    return frozenset({name.partition(".")[0], *neighbours.imported(source.encode())})


def directory_of(simulation: Simulation) -> str:
    """The directory that must be named for it to be found, as it was given; "" when it is found without."""
    usual = Path(FOLDER).resolve()
    for place in directories():
        if place != usual and simulation.origin.startswith(f"{place}{os.sep}"):
            return _given.get(place, str(place))
    return ""


def use(directory: str | Path | None) -> None:
    """Look for the user's files there too, whatever the environment says; None: as the environment says."""
    _chosen[:] = [_resolved(directory)] if directory else []


def directories() -> list[Path]:
    """Where the user's files may lie."""
    given = os.environ.get(VARIABLE, "")
    return [Path(FOLDER).resolve(), *(_chosen or ([_resolved(given)] if given else []))]


def _resolved(directory: str | Path) -> Path:
    place = Path(directory).resolve()
    _given[place] = str(directory)
    return place


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
    """The simulations of a file as it is now; read again only when it, or a module beside it, has changed."""
    known = _files.get(path)
    if known is None or not known.source.unchanged():
        try:
            source = neighbours.read(path)
        except OSError as problem:
            return [], f"{path}: {problem.strerror}"
        known = _files[path] = _Loaded(source, *_execute(source))
    return known.declared, known.error


def _execute(source: neighbours.Source) -> tuple[list[Simulation], str]:
    # A name of its own for each version: what runs keeps the code that it began with.
    module = types.ModuleType(f"batchsim_simulations.{source.path.stem}_{source.version}")
    module.__file__ = str(source.path)
    sys.modules[module.__name__] = module
    try:
        source.execute(module)
    except (Exception, SystemExit):  # noqa: BLE001 - whatever it raises is reported with its traceback
        return [], traceback.format_exc()
    return [_of(each, source.version, str(source.path)) for each in _declared(module)], ""


def _declared(module: types.ModuleType) -> list[Simulation]:
    # By what they are: a second name for a function declares it no second time.
    found = {id(value): getattr(value, MARK) for value in vars(module).values() if hasattr(value, MARK)}
    return [each for each in found.values() if each.function.__module__ in (module.__name__, "builtins")]


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
        except (Exception, SystemExit):  # noqa: BLE001 - a package of somebody else
            yield origin, [], traceback.format_exc()
