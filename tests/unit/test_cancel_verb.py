"""``batchsim cancel`` says what the server says."""

from typing import Any

import pytest
from click.testing import CliRunner

from batchsim.client import Client
from batchsim.verbs import cancel


@pytest.mark.parametrize("warning", ["", "The cancel could not be noted (disk full)."])
def test_a_warning_is_shown(monkeypatch: pytest.MonkeyPatch, warning: str) -> None:
    """On standard error, in a line of its own; the cancel is done, so the exit code is 0."""
    answer: dict[str, Any] = {"cancelled": 3, "state": "CANCELLED", **({"warning": warning} if warning else {})}
    monkeypatch.setattr(Client, "act", lambda *_, **__: answer)
    done = CliRunner().invoke(cancel, ["7"])
    assert (done.exit_code, done.stdout) == (0, "batch 7: 3 jobs cancelled; it is CANCELLED\n")
    assert done.stderr == (f"Warning: {warning}\n" if warning else "")
