"""The worked examples, as a user runs them: their figures are drawn, and their answers are those of theory."""

import csv
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import pytest

from tests.support import environment

EXAMPLES = Path(__file__).parents[2] / "examples"
# Eleven points, checked at once: with this quantile, one run in a thousand with another seed would fail.
STANDARD_ERRORS = 4.0


def run(tmp_path: Path, name: str) -> dict[float, dict[str, float]]:
    """Run an example in a copy of its directory; its points, by the value of what was swept."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("outputs", "*.png"))
    place = tmp_path / "examples" / name
    done = subprocess.run([place / "run.sh"], env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = list(place.glob("*.png"))
    assert [figure.read_bytes()[:8] for figure in figures] == [b"\x89PNG\r\n\x1a\n"]
    again = subprocess.run(
        [sys.executable, "-m", "batchsim", "reproduce", "outputs", "--sample", "50"],
        cwd=place, env=_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    return {float(next(iter(row.values()))): row for row in points(place)}


def points(place: Path) -> Iterator[dict[str, float]]:
    """The rows of ``points.csv`` as numbers."""
    with (place / "outputs" / "points.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: float(value or "nan") for name, value in row.items()}


def _environment() -> dict[str, str]:
    found = environment()
    binaries = Path(sys.executable).parent
    return {**found, "PATH": f"{binaries}{os.pathsep}{found['PATH']}", "PYTHONPATH": str(EXAMPLES.parent)}


def black_scholes(sigma: float, s0: float = 100, k: float = 100, rate: float = 0.05, maturity: float = 1) -> float:
    """The price of a European call (Black and Scholes, 1973)."""
    spread = sigma * math.sqrt(maturity)
    d1 = (math.log(s0 / k) + (rate + sigma**2 / 2) * maturity) / spread
    cdf = NormalDist().cdf
    return s0 * cdf(d1) - k * math.exp(-rate * maturity) * cdf(d1 - spread)


def test_a_python_function(tmp_path: Path) -> None:
    found = run(tmp_path, "python")
    assert sorted(found) == pytest.approx([0.1 + 0.04 * step for step in range(11)])
    for sigma, row in found.items():
        assert row["price_count"] == 100
        assert abs(row["price_mean"] - black_scholes(sigma)) < STANDARD_ERRORS * row["price_standard_error"], sigma


@pytest.mark.skipif(not shutil.which("awk"), reason="there is no awk")
def test_a_shell_script(tmp_path: Path) -> None:
    found = run(tmp_path, "shell")
    assert len(found) == 11
    for p, row in found.items():
        # Feller, "An introduction to probability theory and its applications", vol. 1, XIV.2.
        expected = 1 / (1 + (p / (1 - p)) ** 10)
        error = math.sqrt(expected * (1 - expected) / (20 * 20))
        assert abs(row["ruined_mean"] - expected) < STANDARD_ERRORS * error, p
    assert found[0.5]["rounds_mean"] == pytest.approx(100, abs=STANDARD_ERRORS * found[0.5]["rounds_standard_error"])


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("make")), reason="there is no C compiler")
def test_a_c_program(tmp_path: Path) -> None:
    found = run(tmp_path, "c")
    crossed = [found[p]["crossed_mean"] for p in sorted(found)]
    assert crossed[0] < 0.15
    assert crossed[-1] > 0.85
    # Finite lattices cross half of the time close to the threshold, 0.592746 (Newman and Ziff, PRL 85, 4104, 2000).
    assert 0.2 < found[0.59]["crossed_mean"] < 0.8
