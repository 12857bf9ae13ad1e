"""Parameters of types that JSON lacks, and of names that Python's own things have: typed, run and reproduced."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import differences, environment, files, python

TYPES = '''
import datetime
import decimal
import enum
from dataclasses import dataclass
from pydantic import BaseModel, Field
from batchsim import simulation

@dataclass
class P:
    a: float = 1.0
    b: int = 2

class Grid(BaseModel):
    n: int = 4
    inner: P = P()

class Scheme(enum.Enum):
    EULER = "euler"
    RK4 = "rk4"

@simulation(outputs={"x": float})
def types(
    rng,
    *,
    p: P = P(),
    grid: Grid = Grid(),
    scheme: Scheme = Scheme.EULER,
    day: datetime.date = datetime.date(2020, 1, 1),
    price: decimal.Decimal = decimal.Decimal("0.10"),
    ps: list[P] = [P(3.0)],
):
    """Gives all it has."""
    said = repr((p, grid, scheme, day, price, ps))
    p.a += 1
    grid.inner.b += 1
    ps.append(p)
    return {"x": rng.random() + p.a + grid.n + ps[0].a, "said": said}
'''
NAMES = '''
from pydantic import Field
from batchsim import simulation

@simulation(outputs={"x": float})
def names(
    rng, *, model_dump: float = 1.0, copy: int = 1, json: int = 1, dict: int = 1, schema: int = 1,
    lam: float = Field(1.0, alias="lambda", gt=0),
):
    """Whose names others have, too."""
    return {"x": model_dump + copy + json + dict + schema + lam}
'''

NONE = """
from batchsim import simulation

@simulation(outputs={"x": float})
def none(rng, *, opt: float | None = 0.5, text: str | None = "a", plain: str = "b", free=1):
    return {"x": 1, "said": repr((opt, text, plain, free))}
"""

pytestmark = pytest.mark.usefixtures("redis_binary")


@pytest.fixture
def place(home: Path) -> Path:
    """A directory with all files."""
    (home / "simulations").mkdir()
    (home / "simulations" / "types.py").write_text(TYPES)
    (home / "simulations" / "names.py").write_text(NAMES)
    (home / "simulations" / "none.py").write_text(NONE)
    return home


def cli(home: Path, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run ``batchsim`` in a directory."""
    command = python("-m", "batchsim", *arguments)
    env = environment(WORKERS=2, **settings)
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False)


def run_and_reproduce(place: Path, *words: str) -> dict[str, Any]:
    """Run a batch, then again from its directory, and by the command that is shown; returns its specification."""
    done = cli(place, "run", "--seed", "5", *words)
    assert (done.returncode, "Warning" in done.stderr) == (0, False), done
    done = cli(place, "reproduce", "outputs")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert ", 0 differ" in done.stdout
    by_hand = shlex.split(done.stdout.split("By hand: batchsim ")[1])
    assert cli(place, *by_hand, OUTPUT_DIR="again").returncode == 0
    assert differences(files(place / "again"), files(place / "outputs")) == []
    found: dict[str, Any] = json.loads((place / "outputs" / "batch.json").read_text())
    return found


def test_every_type_is_given_as_json(place: Path) -> None:
    """The function gets what it declares, in each job anew; what was left to it is recorded."""
    words = ("--p", '{"a": 2}', "--scheme", "rk4", "--price", "0.25", "--jobs", "6")
    spec = run_and_reproduce(place, "--simulation", "types", *words)
    assert spec["defaults"] == {
        "grid": {"n": 4, "inner": {"a": 1.0, "b": 2}}, "day": "2020-01-01", "ps": [{"a": 3.0, "b": 2}]
    }  # fmt: skip
    job = (place / "outputs" / "job_6.csv").read_text()
    for part in (
        "(P(a=2.0, b=2), Grid(n=4, inner=P(a=1.0, b=2)), <Scheme.RK4: 'rk4'>",
        "datetime.date(2020, 1, 1), Decimal('0.25'), [P(a=3.0, b=2)])",
    ):
        assert part in job


def test_every_type_is_swept(place: Path) -> None:
    """From a file, since the command line has no way to write it."""
    points = [
        {"p": {"a": 5}, "grid": {"n": 2}, "day": "2021-02-03", "ps": [{"b": 7}, {}]},
        {"p": {"b": 3}, "price": "1.10", "scheme": "rk4"},
    ]
    (place / "points.json").write_text(json.dumps(points))
    run_and_reproduce(place, "--simulation", "types", "--from-json", "points.json", "--replications", "3")
    first, last = ((place / "outputs" / f"job_{index}.csv").read_text() for index in (3, 4))
    assert "(P(a=5.0, b=2), Grid(n=2, inner=P(a=1.0, b=2)), <Scheme.EULER: 'euler'>, datetime.date(2021, 2, 3)" in first
    assert "(P(a=1.0, b=3), Grid(n=4, inner=P(a=1.0, b=2)), <Scheme.RK4: 'rk4'>, datetime.date(2020, 1, 1)" in last
    assert "Decimal('1.10')" in last


def test_any_name(place: Path) -> None:
    """Nothing is said of it on stderr, at no command that reads the directory."""
    given = ("--lam", "2,3", "--copy", "4", "--model-dump", "0.5", "--schema", "6")
    spec = run_and_reproduce(place, "--simulation", "names", *given, "--replications", "2")
    assert spec["defaults"] == {"json": 1, "dict": 1}
    assert (place / "outputs" / "job_1.csv").read_bytes() == b"x\r\n14.5\r\n"
    done = cli(place, "simulations", "--local")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "names(model_dump, copy, json, dict, schema, lam) -> x" in done.stdout
    done = cli(place, "run", "--simulation", "names", "--lambda", "2", "--jobs", "1")
    told = "lambda is not a parameter of names; there are: model_dump, copy, json, dict, schema, lam"
    assert (done.returncode, told in done.stderr, done.stderr.count("\n")) == (2, True, 1), done


def test_none_is_typed_as_null(place: Path) -> None:
    """Where a parameter can be that; elsewhere it is a text, and in quotes everywhere."""
    given = ("--opt", "null,2", "--text", "null", "--plain", "null", "--free", "null", "--replications", "2")
    spec = run_and_reproduce(place, "--simulation", "none", *given)
    assert spec["parameters"] == {"text": None, "plain": "null", "free": None}
    assert spec["sweep"]["axes"] == {"opt": [None, 2.0]}
    assert "(None, None, 'null', None)" in (place / "outputs" / "job_1.csv").read_text()
    assert run_and_reproduce(place, "--simulation", "none", "--text", '"null"', "--jobs", "1")["parameters"] == {
        "text": "null"
    }
