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
if sys.argv[2:]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
print("imported")
"""
HANGS = """
import signal, time
print("begun")
for _ in range(2):
    signal.raise_signal(signal.SIGINT)
time.sleep(60)
"""
COMMAND = """
import signal, sys, time
from batchsim.interrupts import Interrupts
class Terminated(BaseException):
    pass
signal.signal(signal.SIGINT, {before})
Interrupts(Terminated).install()
try:
    import told
    if sys.argv[2:]:
        time.sleep(0.1)
        print("unmasked")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {{signal.SIGINT, signal.SIGTERM}})
    time.sleep({seconds})
except (KeyboardInterrupt, Terminated) as end:
    print(type(end).__name__)
"""


def said(place: Path, *words: str, before: str = "signal.default_int_handler", seconds: int = 60) -> list[str]:
    """What a command prints that is told to end while it imports."""
    (place / "told.py").write_text(TOLD)
    given = environment()
    given["PYTHONPATH"] += f":{place}"
    command = python("-c", COMMAND.format(before=before, seconds=seconds), *words)
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=50, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(("name", "end"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")])
def test_the_import_is_ended_first(tmp_path: Path, name: str, end: str) -> None:
    """An exception within it could be lost; it comes right behind it."""
    assert said(tmp_path, name) == ["imported", end]


@pytest.mark.parametrize(("name", "end"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")])
def test_a_mask_behind_it_holds(tmp_path: Path, name: str, end: str) -> None:
    """The same is true of a fork, around which both are masked."""
    assert said(tmp_path, name, "masked") == ["imported", "unmasked", end]


def test_what_is_ignored_stays_so(tmp_path: Path) -> None:
    """As SIGINT is in the background of a script."""
    assert said(tmp_path, "SIGINT", before="signal.SIG_IGN", seconds=0) == ["imported"]


def test_a_second_one_ends_an_import_that_hangs(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C again means it."""
    (tmp_path / "hangs.py").write_text(HANGS)
    given = environment()
    given["PYTHONPATH"] += f":{tmp_path}"
    code = COMMAND.format(before="signal.default_int_handler", seconds=60).replace("told", "hangs")
    done = subprocess.run(python("-c", code), env=given, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.split() == ["begun", "KeyboardInterrupt"]


def test_sigterm_is_taken_once() -> None:
    """A second one does not stop what the first one has begun."""
    code = COMMAND.format(before="signal.default_int_handler", seconds=60)
    code = code.replace("import told", f"signal.raise_signal({signal.SIGTERM:d})")
    code += f"    signal.raise_signal({signal.SIGTERM:d})\n    print('cleaned up')\n"
    done = subprocess.run(python("-c", code), env=environment(), capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.splitlines() == ["Terminated", "cleaned up"]
