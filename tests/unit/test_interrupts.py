"""A command is ended by SIGINT and SIGTERM, after an import that they come into."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import environment, python

# During its import it is told to end, and goes on for longer than the command waits before it looks again.
TOLD = """
import os, signal, sys, time
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
end = time.monotonic() + 0.1
while time.monotonic() < end:
    pass
"""
COMMAND = """
import signal, sys, time
from batchsim.interrupts import Interrupts
class Terminated(BaseException):
    pass
Interrupts(Terminated).install()
try:
    import told
    print("imported")
    {after}
    time.sleep(60)
except (KeyboardInterrupt, Terminated) as end:
    print(type(end).__name__)
"""
MASKED = """
    both = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    time.sleep(0.1)
    print("unmasked")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
"""


def said(place: Path, name: str, after: str = "", *, ignored: bool = False) -> list[str]:
    """What a command prints that is told to end while it imports."""
    (place / "told.py").write_text(TOLD)
    code = COMMAND.replace("    {after}\n", after)
    if ignored:
        code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{code}".replace("sleep(60)", "sleep(0)")
    else:
        code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    given = environment()
    given["PYTHONPATH"] += f":{place}"
    done = subprocess.run(
        python("-c", code, name), env=given, capture_output=True, text=True, timeout=50, check=False
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(("name", "end"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")])
def test_the_import_is_ended_first(tmp_path: Path, name: str, end: str) -> None:
    """An exception within it could be lost; it comes right behind it."""
    assert said(tmp_path, name) == ["imported", end]


@pytest.mark.parametrize(("name", "end"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")])
def test_a_mask_behind_it_holds(tmp_path: Path, name: str, end: str) -> None:
    """The same is true of a fork, around which both are masked."""
    assert said(tmp_path, name, MASKED) == ["imported", "unmasked", end]


def test_what_is_ignored_stays_so(tmp_path: Path) -> None:
    """As SIGINT is in the background of a script."""
    assert said(tmp_path, "SIGINT", ignored=True) == ["imported"]


def test_sigterm_is_taken_once(tmp_path: Path) -> None:
    """A second one does not stop what the first one has begun."""
    code = COMMAND.replace("    {after}\n", "").replace("import told", f"signal.raise_signal({signal.SIGTERM:d})")
    code += f"    signal.raise_signal({signal.SIGTERM:d})\n    print('cleaned up')\n"
    done = subprocess.run(python("-c", code), env=environment(), capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split("\n")[:2] == ["Terminated", "cleaned up"]
