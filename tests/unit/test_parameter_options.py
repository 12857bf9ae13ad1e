"""A simulation's parameters as options of the command line."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from batchsim.cli import batchsim
from batchsim.parameters import SIMULATION, as_parameters, value_in
from common.simulations import registry

OWN = {"--seed", "--simulation", "--param", "--zip"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--sigma", "0.2"], ["--param", "sigma=0.2"]),
        (["--sigma=0.1,0.2"], ["--param", "sigma=0.1,0.2"]),
        (["--mean-rate", "-1"], ["--param", "mean_rate=-1"]),
        (["--seed", "7", "--zip"], ["--seed", "7", "--zip"]),
        (["--param", "k=1", "-h"], ["--param", "k=1", "-h"]),
        (["--k", "1", "--", "--sigma", "2"], ["--param", "k=1", "--", "--sigma", "2"]),
        (["--text="], ["--param", "text="]),
    ],
)
def test_other_options_are_parameters(given: list[str], read: list[str]) -> None:
    assert list(as_parameters(given, OWN)) == read


@pytest.mark.parametrize("given", [["--sigma"], ["--sigma", "--seed", "7"]])
def test_a_parameter_needs_a_value(given: list[str]) -> None:
    with pytest.raises(click.UsageError, match="--sigma is no option; as a parameter"):
        list(as_parameters(given, OWN))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["--simulation", "a", "--x", "1"], "a"),
        (["--x", "1", "--simulation=b"], "b"),
        (["--", "./model", "--simulation", "c"], ""),
        (["--simulation"], ""),
        ([], ""),
    ],
)
def test_the_simulation_is_found(given: list[str], name: str) -> None:
    assert value_in(given, SIMULATION) == name


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_help_lists_the_parameters(verb: str) -> None:
    text = CliRunner().invoke(batchsim, [verb, "--simulation", "european_option", "--help"]).output
    assert "Parameters of european_option" in text
    assert "--sigma NUMBER" in text
    assert "volatility per" in text
    assert "Parameters of" not in CliRunner().invoke(batchsim, [verb, "--help"]).output


MINE = """
from enum import Enum
from typing import Annotated, Literal
from pydantic import Field
from batchsim import simulation

class Shape(Enum):
    ROUND = "round"
    FLAT = "flat"

@simulation(outputs={"y": float})
def mine(rng, *, seed: int = 3, colour: Literal["red", "blue"] = "red", shape: Shape = Shape.FLAT, v: list[float] = [],
         depth: Annotated[float | None, Field(gt=0, description="how deep")] = None, needed: str):
    return {"y": 1.0}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory with a simulation, which is not where it would be looked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_chosen", [])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.py").write_text(MINE)
    return "elsewhere"


def shown(*words: str) -> list[str]:
    """The lines of the help about parameters, without their blanks."""
    text = CliRunner().invoke(batchsim, [*words, "--simulation", "mine", "--help"]).output
    return [
        " ".join(line.split()) for line in text.partition("Parameters of mine")[2].partition("\n\n")[0].splitlines()
    ]


def test_help_says_what_each_parameter_can_be(mine: str) -> None:
    """And how it is written: --seed is the batch's."""
    assert shown("run", "--simulations-dir", mine)[1:] == [
        "--param seed=INTEGER [default: 3]",
        "--colour [red|blue] [default: red]",
        "--shape [round|flat] [default: flat]",
        "--v JSON [default: []]",
        "--depth NUMBER how deep [default: null]",
        "--needed STRING [required]",
    ]


def test_help_looks_where_the_settings_say(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when another of them is wrong."""
    assert shown("run") == []
    monkeypatch.setenv("SIMULATIONS_DIR", mine)
    assert len(shown("run")) == len(shown("submit")) == 7
    monkeypatch.setenv("WORKERS", "none")
    assert len(shown("run", f"--simulations-dir={mine}")) == 7
    assert len(shown("run")) == 7


def test_without_a_simulation_an_unknown_option_is_wrong() -> None:
    """And how it is written if it was to be a parameter, of a program, too; not of a flag, which can be none."""
    for words in (["run", "--sigma", "0.1,0.2"], ["run", "--sigma", "0.1,0.2", "--", "./model"], ["submit", "--sigma"]):
        result = CliRunner().invoke(batchsim, words)
        assert result.exit_code == 2
        assert "No such option" in result.output
        assert "If it is a parameter: --param sigma=1, or --param sigma=1,2 for a sweep" in result.output
    assert "parameter" not in CliRunner().invoke(batchsim, ["run", "-x"]).output
