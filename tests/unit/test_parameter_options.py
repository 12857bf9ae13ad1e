"""A simulation's parameters as options of the command line."""

import click
import pytest
from click.testing import CliRunner

from batchsim.cli import batchsim
from batchsim.parameters import as_parameters, simulation_in

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
    assert simulation_in(given) == name


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_help_lists_the_parameters(verb: str) -> None:
    text = CliRunner().invoke(batchsim, [verb, "--simulation", "european_option", "--help"]).output
    assert "Parameters of european_option" in text
    assert "--sigma NUMBER" in text
    assert "volatility per" in text
    assert "Parameters of" not in CliRunner().invoke(batchsim, [verb, "--help"]).output


def test_without_a_simulation_an_unknown_option_is_wrong() -> None:
    result = CliRunner().invoke(batchsim, ["run", "--sigma", "0.2"])
    assert result.exit_code == 2
    assert "No such option" in result.output
