"""What `batchsim explain` prints of an explanation."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from batchsim.cli import batchsim
from batchsim.client import Client


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The output when the server gives this advice."""

    def run(advice: str) -> str:
        said = {"id": "7", "state": "FAILED", "reason": "TimeLimit", "details": ["one", "two\nlines"], "advice": advice}
        monkeypatch.setattr(Client, "explain", lambda *_: said)
        done = CliRunner().invoke(batchsim, ["explain", "7"])
        assert done.exit_code == 0, done
        return done.output

    return run


def test_one_piece_of_advice(printed: Callable[[str], str]) -> None:
    """It stands in the line that announces it; a detail of several lines is indented."""
    assert printed("wait") == "7 is FAILED (TimeLimit)\n  one\n  two\n    lines\n  What to do: wait\n"


def test_several_pieces_of_advice(printed: Callable[[str], str]) -> None:
    """Each has a line of its own below."""
    assert printed("TimeLimit: a\nCrashLimit: b").endswith("\n  What to do:\n    TimeLimit: a\n    CrashLimit: b\n")
