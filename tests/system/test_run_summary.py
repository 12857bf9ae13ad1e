"""What ``batchsim run`` prints at the end: estimates with their uncertainty, points of a sweep, files."""

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest

from common.intervals import half_width, plus_minus
from tests.support import environment, python


@pytest.fixture
def table(home: Path, redis_binary: str) -> "Table":
    """Runs ``batchsim run`` in this test's directory."""
    return Table(home)


class Table:
    """Standard output of a run, and what its files say."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.outputs = home / "outputs"
        #: What was printed besides.
        self.told: list[str] = []
        self.printed = ""

    def of(self, *arguments: str, code: int = 0) -> list[list[str]]:
        """The cells of each printed row."""
        done = subprocess.run(
            python("-m", "batchsim", "run", *arguments),
            env=environment(COLUMNS="200"), cwd=self._home, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done
        self.printed = done.stdout
        self.told = done.stderr.splitlines()
        rows = [re.split(r" *[│┃] *", line) for line in done.stdout.splitlines() if line[0] in "│┃"]
        return [row[1:-1] for row in rows]


def test_estimates(table: Table) -> None:
    """Each output's mean and 95 % interval, as summary.json has them."""
    said = dict(table.of("--simulation", "monte_carlo_pi", "--num-jobs", "30", "--seed", "3"))
    found = json.loads((table.outputs / "summary.json").read_text())["outputs"]
    assert found
    for name, value in found.items():
        half = half_width(value["ci_low"], value["ci_high"])
        assert said[f"mean of {name}"] == plus_minus(value["mean"], half, 0.95)


def test_points(table: Table) -> None:
    """Of a sweep each point, as points.csv has it."""
    rows = table.of(
        "--simulation", "european_option", "--sigma", "0.1,0.2", "--strike", "90,100", "--replications", "5"
    )
    at = rows.index(
        ["sigma", "strike", "jobs", *list(json.loads((table.outputs / "batch.json").read_text())["outputs"])]
    )
    with (table.outputs / "points.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert len(rows) == at + 1 + len(points) == at + 5
    for row, point in zip(rows[at + 1 :], points, strict=True):
        half = half_width(float(point["price_ci_low"]), float(point["price_ci_high"]))
        assert row[:4] == [point["sigma"], point["strike"], "5", plus_minus(float(point["price_mean"]), half)]


def test_many_points(table: Table) -> None:
    """The first twenty; one job a point has no interval."""
    rows = table.of("--simulation", "european_option", "--sigma", "0.1:0.9:0.02")
    at = next(number for number, row in enumerate(rows) if row[:2] == ["sigma", "jobs"])
    assert len(rows) == at + 1 + 20
    assert all("±" not in cell for row in rows[at:] for cell in row)


@pytest.mark.parametrize(("limit", "said"), [(1000, "met, "), (1e-9, "all jobs were run")])
def test_a_stop_rule(table: Table, limit: float, said: str) -> None:
    """Whether it was met, and the speed of those that ran."""
    rule = f"standard_error(sum) < {limit}"
    jobs = 100_000 if said == "met, " else 300
    found = dict(table.of("--jobs", str(jobs), "--output-mode", "packed", "--until", rule, "--job-seconds", "0.001"))
    assert found["stop rule"].startswith(f"{rule}: {said}")
    assert ("ABORTED by its stop rule" in table.printed) is (said == "met, ")
    assert float(found["speed"].split()[0].replace(",", "")) < 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "files"),
    [
        (("--num-jobs", "1"), 0, "outputs/job_1.csv, results.csv, results.parquet"),
        (
            ("--num-jobs", "3", "--output-mode", "packed"),
            0,
            "outputs/packed/ with 3 CSVs, results.csv, results.parquet",
        ),
        (
            ("--num-jobs", "3", "--simulation", "faulty", "--raises", "1"),
            1,
            "outputs/results.csv, results.parquet, errors.txt",
        ),
    ],
)
def test_files(table: Table, arguments: tuple[str, ...], code: int, files: str) -> None:
    """Only those that there are."""
    assert dict(table.of(*arguments, code=code))["files"] == files
    for name in files.removeprefix("outputs/").split(", "):
        assert (table.outputs / name.split(" ")[0]).exists()


NEVER = '''
from batchsim import simulation

@simulation(outputs={"x": float, "y": float})
def never(rng):
    """Its x is no number."""
    return {"x": float("nan"), "y": 1.0}
'''


def test_an_output_that_is_never_finite(table: Table, home: Path) -> None:
    """It has its row, which says so."""
    (home / "simulations").mkdir()
    (home / "simulations" / "never.py").write_text(NEVER)
    said = dict(table.of("--simulation", "never", "--num-jobs", "3"))
    assert said["mean of x"] == "unknown, n 0, 3 not finite"
    assert said["mean of y"].startswith("1")


BAD = '''
from batchsim import simulation

@simulation(outputs={"x": float})
def bad(rng):
    """Fails."""
    raise ValueError("no luck")
'''


def test_failures(table: Table, home: Path) -> None:
    """The first three with the line of the user's file, and where the tracebacks of all are."""
    (home / "simulations").mkdir()
    (home / "simulations" / "bad.py").write_text(BAD)
    table.of("--simulation", "bad", "--num-jobs", "5", code=1)
    place = "ValueError: no luck (simulations/bad.py, line 7)"
    assert [line for line in table.told if "failed" in line and line[0] != "{"] == [
        f"job {index} failed: {place}" for index in (1, 2, 3)
    ]
    assert "the whole errors: outputs/errors.txt" in table.told
    texts = (table.outputs / "errors.txt").read_text().split("\n\n")
    assert len(texts) == 5
    for index, text in enumerate(texts, 1):
        assert text.startswith(f"Job 1_{index}\nTraceback (most recent call last):\n")
        assert text.rstrip().endswith(place)
