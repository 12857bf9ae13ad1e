"""The command that repeats a batch: what the command line reads from it is the batch."""

import json
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from batchsim import verbs
from batchsim.cli import batchsim
from common.batch import BatchSpec
from common.jobs import Jobs
from common.options import Options, read_options
from common.provenance import PACKAGES, command, environment
from common.simulations import registry
from common.sweep import Sweep

SPECS: list[dict[str, Any]] = [
    {},
    {"simulation": "faulty", "parameters": {"raises": 0.1, "flaky": 1e-05}},
    {"retries": 3, "memory_limit_mb": 64, "time_limit_seconds": 1.5, "output_mode": "packed", "max_fails": 3},
    {"until": "ci_halfwidth(mean) < 0.5 % and n >= 1000", "throttle": 2, "priority": -5},
    {"simulation": "faulty", "parameters": {"kills": 0.0},
     "sweep": {"axes": {"raises": [0.1, 0.2], "flaky": [0, 0.3]}}},
    {"simulation": "faulty", "sweep": {"mode": "zip", "axes": {"raises": [0.1, 0.2], "flaky": [0.1, 0.3]},
                                       "replications": 4, "common_random_numbers": True}},
    {"simulation": "faulty", "sweep": {"axes": {"raises": [0.0], "flaky": [0.0]}, "replications": 5}},
    {"sweep": {"points": [{}], "replications": 6, "common_random_numbers": True}},
]  # fmt: skip


def spec_of(values: dict[str, Any]) -> BatchSpec:
    """A specification as a submit makes it."""
    given = dict(values)
    jobs = 8
    if "sweep" in given:
        sweep = Sweep.from_dict(given["sweep"])
        given["sweep"], jobs = sweep.to_dict(), sweep.jobs
    name = given.get("simulation", "random_numbers")
    return BatchSpec(7, jobs, 42, outputs=tuple(registry.find(name).outputs), **given)


def read_back(line: str) -> tuple[dict[str, Any], int | None, str]:
    """What ``batchsim run`` would run: fields of the batch, jobs, seed."""
    words = shlex.split(line)
    assert words[:2] == ["batchsim", "run"]
    with click.Context(batchsim) as parent:
        given = dict(batchsim.commands["run"].make_context("run", words[2:], parent=parent).params)
    fields = read_options(verbs.batch_fields(given)).model_dump()
    return fields, int(given["jobs"]) if given["jobs"] else None, given["seed"]


@pytest.mark.parametrize("values", SPECS, ids=str)
def test_the_command_repeats_the_batch(values: dict[str, Any]) -> None:
    """Same seed, same size, same options, and the same bytes of every job."""
    spec = spec_of(values)
    fields, jobs, seed = read_back(command(spec))
    again = spec_of({name: fields[name] for name in ("simulation", "parameters", "sweep") if fields[name]})
    assert seed == str(spec.seed)
    assert again.jobs == spec.jobs if spec.sweep else jobs == spec.jobs
    for name in set(Options.model_fields) - {"simulation", "parameters", "sweep", "max_fails"}:
        assert fields[name] == getattr(spec, name)
    assert fields["max_fails"] == (None if spec.max_fails is None else str(spec.max_fails))

    def outcome(jobs: Jobs, index: int) -> object:
        try:
            return jobs.result(index)
        except RuntimeError as error:
            return str(error)

    one, other = Jobs(spec), Jobs(again)
    assert [outcome(one, i) for i in range(1, spec.jobs + 1)] == [outcome(other, i) for i in range(1, spec.jobs + 1)]


def test_the_environment_is_json() -> None:
    """Python, packages, platform; nothing that names a person or a machine."""
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert set(found["packages"]) == set(PACKAGES)
    assert str(Path.home()) not in json.dumps(found)
