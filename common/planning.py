"""What a submit asks for, checked against what it runs, before anything is made: how many jobs, and with what."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic_core import to_jsonable_python

from common.errors import InvalidInput
from common.options import Options, read_options
from common.programs.admission import admit
from common.programs.array import ArrayIndices
from common.programs.program import Program
from common.simulations import registry
from common.simulations.declare import Simulation, as_json
from common.simulations.programs import of_program
from common.simulations.recorded import recorded
from common.stopping import StopRule
from common.sweep import Sweep


def simulation_of(options: Options, program: Program | None = None, outputs: Sequence[str] = ()) -> Simulation:
    """What the batch runs: the program, or what the options name. Raises :class:`InvalidInput`."""
    if program is not None:
        return of_program(options.simulation, program, outputs)
    return registry.find(options.simulation)


def size(jobs: int | None, options: Options, simulation: Simulation) -> int:
    """Number of jobs: as given, or as the sweep or the array says.

    Raises :class:`InvalidInput` naming both numbers when two of them differ, and when there is none.
    """
    said = _said(options, simulation)
    if simulation.version and (jobs is not None or "sweep" in said):
        # A declared program's array is what it has when a client says nothing.
        said.pop("array", None)
    if jobs is None and not said:
        raise InvalidInput('jobs is missing: send {"jobs": 1000}', field="jobs")
    swept, indices = said.get("sweep"), said.get("array")
    if swept and indices and swept != indices:
        raise InvalidInput(f"array has {indices} jobs, but the sweep has {swept}; leave array out", field="array")
    for name, count in said.items():
        if jobs not in (None, count):
            raise InvalidInput(f"jobs is {jobs}, but the {name} has {count}; leave jobs out", field="jobs")
    return next(iter(said.values())) if jobs is None else jobs


def says_size(options: Options, simulation: Simulation) -> bool:
    """Whether there is a sweep or an array, which have a size of their own."""
    return bool(_said(options, simulation))


def fields(options: Options, jobs: int, simulation: Simulation) -> dict[str, Any]:
    """The options as fields of a specification. Raises :class:`InvalidInput` that names what does not fit."""
    options = with_defaults(options, simulation)
    sweep = Sweep.from_dict(options.sweep) if options.sweep else None
    parameters = options.parameters
    if sweep is None:
        checked = simulation.check(parameters)
    else:
        sweep.check(simulation, parameters)
    if simulation.program is not None:
        _admit(simulation, simulation.program, {*parameters, *(sweep.names() if sweep else ())})
        if sweep is None:
            parameters = checked
        else:
            parameters, sweep = _complete(simulation, parameters, sweep)
    else:
        parameters, sweep = _as_jobs_get_them(simulation, parameters, sweep)
    if options.until:
        _check_rule(options.until, simulation)
    return {
        **options.model_dump(),
        "parameters": as_json(dict(parameters)),
        "max_fails": options.most_fails(jobs),
        "sweep": as_json(sweep.to_dict()) if sweep else {},
        "outputs": tuple(simulation.outputs),
        "version": "" if options.simulation in registry.BUILT_IN else simulation.version,
        "program": _with_array(simulation, jobs).to_dict() if simulation.program else {},
    }


def defaults(fields: Mapping[str, Any], simulation: Simulation) -> dict[str, Any]:
    """The parameters that the fields of a specification leave to the simulation, with their values, as JSON has them.

    In a list of points, also one that only some of them leave out.
    """
    if simulation.program is not None:
        # Completed when it is submitted.
        return {}
    given: Mapping[str, Any] = fields["parameters"]
    found: dict[str, Any] = {}
    sweep = Sweep.from_dict(fields["sweep"]) if fields["sweep"] else None
    points: Sequence[Mapping[str, Any]] = [sweep.parameters(0)] if sweep else [{}]
    if sweep and sweep.mode == "points":
        points = sweep.points
    for point in points:
        if not {*given, *point, *found}.issuperset(simulation.names):
            found |= {
                name: as_json(to_jsonable_python(value, bytes_mode="base64", fallback=_kind))
                for name, value in simulation.check_each({**given, **point}).items()
                if name not in given and name not in point
            }
    return found


def _kind(value: object) -> str:
    """What stands for a value that JSON cannot say: no address, which would be another each time."""
    return type(value).__qualname__


def with_defaults(options: Options, simulation: Simulation) -> Options:
    """The options, and for what was not given what the simulation's declaration says."""
    if not simulation.defaults:
        return options
    return read_options({**simulation.defaults, **options.model_dump(exclude_unset=True)})


def _said(options: Options, simulation: Simulation) -> dict[str, int]:
    found = {}
    if options.sweep:
        found["sweep"] = Sweep.from_dict(options.sweep).jobs
    if simulation.program is not None and simulation.program.array:
        found["array"] = ArrayIndices.parse(simulation.program.array).count
    return found


def _admit(simulation: Simulation, program: Program, names: set[str]) -> None:
    """What was declared has been looked at when it was read; the command line's program is looked at here."""
    if not simulation.version:
        admit(program, names, tuple(simulation.outputs))


def _complete(simulation: Simulation, parameters: Mapping[str, Any], sweep: Sweep) -> tuple[dict[str, Any], Sweep]:
    """The parameters as a program gets them: each of its declared type, and at every point all of them."""
    first = simulation.check_each({**parameters, **sweep.parameters(0)})
    names = [name for name in first if name in sweep.names()] + sorted(sweep.names() - set(first))
    fixed = {name: value for name, value in first.items() if name not in names}
    if sweep.mode == "points":
        points = [simulation.check_each({**parameters, **point}) for point in sweep.points]
        for number, point in enumerate(points, 1):
            missing = next((name for name in names if name not in point), "")
            if missing:
                raise InvalidInput(f"points: {missing} is missing in point {number}, and others have it", field=missing)
        return fixed, replace(sweep, points=[{name: point[name] for name in names} for point in points])
    axes = {
        name: [simulation.check_each({**first, name: value})[name] for value in values]
        for name, values in sweep.axes.items()
    }
    return fixed, replace(sweep, axes=axes)


def _as_jobs_get_them(
    simulation: Simulation, parameters: Mapping[str, Any], sweep: Sweep | None
) -> tuple[dict[str, Any], Sweep | None]:
    """What a function was given, each of its declared type: ``"3"`` for an int is recorded as 3."""
    if sweep is None:
        return recorded(simulation, parameters, parameters), None
    first = {**parameters, **sweep.parameters(0)}
    fixed = recorded(simulation, first, parameters)
    if sweep.mode == "points":
        points = [recorded(simulation, {**parameters, **point}, point) for point in sweep.points]
        return fixed, replace(sweep, points=points)
    axes = {
        name: [recorded(simulation, {**first, name: value}, [name])[name] for value in values]
        for name, values in sweep.axes.items()
    }
    return fixed, replace(sweep, axes=axes)


def _with_array(simulation: Simulation, jobs: int) -> Program:
    """The program; a declared one without its array, when the batch has another size."""
    program = simulation.program
    assert program is not None
    if simulation.version and program.array and ArrayIndices.parse(program.array).count != jobs:
        return replace(program, array="")
    return program


def _check_rule(text: str, simulation: Simulation) -> None:
    rule = StopRule.parse(text)
    if rule.output not in simulation.outputs:
        there = ", ".join(simulation.outputs) or "none"
        raise InvalidInput(f"until: {rule.output} is no output of {simulation.name}; there are {there}", field="until")
