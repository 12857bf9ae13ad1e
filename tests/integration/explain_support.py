"""What an explanation must be like, and that the commands in its advice exist."""

import re
import shlex

import click

from batchsim.cli import batchsim
from common.waiting import Explanation
from tests.support import REPO

COMMAND = re.compile(r"`([^`]+)`")


def check(found: Explanation, state: str, reason: str, *facts: str) -> None:
    """It is in this state for this reason, says these facts, and advises what can be done as it is written."""
    assert (found.state, found.reason) == (state, reason), found
    text = "\n".join(found.details)
    for fact in facts:
        assert fact in text, found
    assert all(line.strip() for line in found.details), found
    assert found.advice
    if reason:
        assert found.advice != "nothing"
    for command in COMMAND.findall(found.advice):
        assert_command(command)


def assert_command(text: str) -> None:
    """The command line is one that exists, with options that exist and values of their kinds."""
    program, *arguments = shlex.split(text)
    if program == "docker":
        assert arguments[:2] in (["compose", "up"], ["compose", "run"]), text
        assert "worker" in arguments or "worker=N" in arguments
        assert re.search(r"^  worker:$", (REPO / "docker-compose.yml").read_text(), re.MULTILINE)
        return
    assert program == "batchsim", text
    name, *rest = arguments
    verb = batchsim.commands[name]
    with click.Context(batchsim) as parent:
        verb.make_context(name, rest, parent=parent)
