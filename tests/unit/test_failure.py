"""How a job's failure reads: the user's own lines, the place last, and no names of our modules."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.batch import BatchSpec
from common.errors import InvalidInput
from common.outputs import prepare
from common.programs.failure import ProgramFailed
from common.returned import WrongResult
from common.simulations import registry
from services.worker.failure import MAX_ERROR_CHARACTERS, failure_text
from services.worker.guard import Guard, Limits, TimeLimitReached
from services.worker.job import BatchJob
from services.worker.slice import run_slice

Texts = Callable[..., str]

MINE = '''
import json
import signal
import numpy as np
from batchsim import simulation
from model import step

class Own(Exception):
    pass

@simulation(outputs={"x": float})
def mine(rng, *, what: str):
    """Fails in many ways."""
    if what == "raise":
        raise ValueError("bad")
    if what == "library":
        json.loads("{")
    if what == "numpy":
        np.linalg.inv(np.zeros((2, 2)))
    if what == "own":
        raise Own
    if what == "beside":
        step()
    if what == "lines":
        raise ValueError("first\\nsecond")
    if what == "note":
        error = ValueError("bad")
        error.add_note("a note")
        raise error
    if what == "group":
        raise ExceptionGroup("two", [ValueError("bad"), KeyError("k")])
    if what == "syntax":
        exec("x = = 1")
    if what == "deep":
        mine(rng, what="deep")
    if what == "long":
        raise ValueError("x" * 100_000)
    if what == "memory":
        raise MemoryError
    while what == "hang":
        signal.raise_signal(signal.SIGALRM)
    return {"y": 1}
'''
MODEL = """
class Broken(Exception):
    pass

def step():
    try:
        raise Broken("model")
    except Broken:
        raise Broken("again")
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's working directory, with a simulation that imports a module."""
    place = tmp_path / "simulations"
    place.mkdir()
    (place / "mine.py").write_text(MINE)
    # Its own in each test: modules of one version are loaded once.
    (place / "model.py").write_text(f"{MODEL}# {tmp_path}")
    monkeypatch.chdir(tmp_path)
    registry.use(None)
    yield tmp_path
    registry.use(None)


@pytest.fixture
def text_of(directory: Path, guard: Guard) -> "Texts":
    """How a job of ``mine`` fails with the parameters that it is given."""

    def text(*, what: str, **limits: float) -> str:
        found = registry.find("mine")
        given: dict[str, Any] = {"parameters": {"what": what}, "outputs": tuple(found.outputs), **limits}
        spec = BatchSpec(1, 1, 1, simulation="mine", version=found.version, startup=False, **given)
        prepare(directory, spec)
        job = BatchJob(spec, directory, "slot", "none")
        work = run_slice(job, 1, 1, seconds=60, attempt=1, slot=1, stopping=lambda: False, guard=guard)
        job.close()
        return work.failures[1]

    return text


def line_of(text: str, name: str = "mine.py") -> int:
    """Where this stands in the user's file."""
    source = MINE if name == "mine.py" else MODEL
    return next(number for number, line in enumerate(source.splitlines(), 1) if text in line)


CASES = [
    ("raise", "ValueError: bad", 'raise ValueError("bad")'),
    ("library", "json.decoder.JSONDecodeError: Expecting property name", "json.loads"),
    ("numpy", "numpy.linalg.LinAlgError: Singular matrix", "np.linalg.inv"),
    ("own", "Own", "raise Own"),
    ("lines", "ValueError: first", "first"),
    ("group", "ExceptionGroup: two (2 sub-exceptions)", "ExceptionGroup"),
    ("syntax", "SyntaxError: invalid syntax", "exec("),
]


@pytest.mark.parametrize(("what", "said", "where"), CASES, ids=[case[0] for case in CASES])
def test_the_last_line_says_what_and_where(text_of: Texts, what: str, said: str, where: str) -> None:
    """The innermost line of the user's own files, as seen from the working directory."""
    last = text_of(what=what).splitlines()[-1]
    assert last.startswith(said)
    assert last.endswith(f" (simulations/mine.py, line {line_of(where)})")


def test_only_the_users_lines(text_of: Texts, directory: Path) -> None:
    """The traceback begins where our code calls theirs, and names the exception once."""
    text = text_of(what="raise")
    line = line_of('raise ValueError("bad")')
    assert text == (
        f'Traceback (most recent call last):\n  File "{directory}/simulations/mine.py", line {line}, in mine\n'
        f'    raise ValueError("bad")\nValueError: bad (simulations/mine.py, line {line})\n'
    )


def test_a_module_beside_the_file(text_of: Texts) -> None:
    """It is the user's too; the name that it has with us, version and all, is in no line."""
    text = text_of(what="beside")
    assert text.splitlines()[-1] == f"Broken: again (simulations/model.py, line {line_of('again', 'model.py')})"
    assert "\nBroken: model\n" in text
    assert "batchsim_" not in text


def test_all_of_the_message_is_kept(text_of: Texts) -> None:
    """Also its further lines and notes; a very long one to a bound, at which the place is still there."""
    assert "\nValueError: first\nsecond\nValueError: first (" in text_of(what="lines")
    assert "\nValueError: bad\na note\nValueError: bad (" in text_of(what="note")
    text = text_of(what="long")
    assert len(text) <= MAX_ERROR_CHARACTERS
    assert re.fullmatch(r"ValueError: x+ … x+ \(simulations/mine.py, line \d+\)", text.splitlines()[-1])
    assert text_of(what="deep").splitlines()[-1].startswith("RecursionError: maximum recursion depth exceeded")


def test_limits_are_named_as_people_know_them(text_of: Texts) -> None:
    """With their values, and where the job was."""
    text = text_of(what="hang", time_limit_seconds=60)
    assert re.fullmatch(r"TimeLimit: ran for longer than 60 s \(simulations/mine.py, line \d+\)", text.splitlines()[-1])
    assert "TimeLimitReached" not in text
    assert "guard.py" not in text
    text = text_of(what="memory", memory_limit_mb=50)
    wanted = "OutOfMemory: wanted more memory than its limit of 50 MB"
    assert text.splitlines()[-1] == f"{wanted} (simulations/mine.py, line {line_of('raise MemoryError')})"
    assert text.count("MemoryError") == 1
    assert text_of(what="memory").splitlines()[-1].startswith("MemoryError (")


def test_a_wrong_result_is_a_sentence(text_of: Texts) -> None:
    """There is no line of the user's at which it happened; the text names what is wrong."""
    assert text_of(what="none") == "mine returned no 'x'; it declares x"


@pytest.mark.parametrize("error", [ProgramFailed("exit code 3"), InvalidInput("k is 0"), WrongResult("no x")])
def test_our_own_errors_are_their_message(error: Exception) -> None:
    """They are written for people."""
    assert failure_text(error, Limits()) == str(error)


@pytest.mark.parametrize("error", [ProgramFailed("/a/caf\udce9"), ValueError("/a/caf\udce9")])
def test_what_is_no_character_is_written_as_its_escape(error: Exception) -> None:
    """A file's name need not be UTF-8, and what keeps the text must be."""
    text = failure_text(error, Limits())
    assert r"/a/caf\udce9" in text
    text.encode()


def test_a_program_at_its_time_limit() -> None:
    """Only our code was at work."""
    error = TimeLimitReached()
    assert failure_text(error, Limits(time_seconds=2)) == "TimeLimit: ran for longer than 2 s"


def test_a_file_elsewhere_is_named_in_full(
    text_of: Texts, directory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the working directory is no parent of it."""
    registry.use(directory / "simulations")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert f"({directory}/simulations/mine.py, line " in text_of(what="raise")
