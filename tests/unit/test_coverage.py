"""The benchmark of sequential stopping stops where the system's rule says, and sees what it is there to see."""

import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks import coverage
from common.statistics import moments
from common.stopping import StopRule
from tests.support import REPO, environment, python


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 7, 50]),
    st.sampled_from([2, 30, 100]),
    st.sampled_from(["ci_halfwidth(x) < 0.2", "ci_halfwidth(x) < 2 %", "standard_error(x) < 0.1"]),
)
def test_it_stops_where_the_rule_is_met(seed: int, look: int, least: int, rule: str) -> None:
    """At the first look at which ``StopRule.met`` says so of the moments, job by job, with SciPy's interval there."""
    values = np.random.default_rng(seed).normal(5.0, 1.0, (3, 400))
    chosen = StopRule.parse(f"{rule} and n >= {least}")
    stops, means, halves = coverage.stopped(chosen, values, look)
    for row, n, mean, half in zip(values, stops.tolist(), means, halves, strict=True):
        looks = [at for at in range(look, 401, look) if at > 1 and chosen.met({"x": moments(row[:at])})]
        assert n == (looks[0] if looks else 400)
        low, high = stats.t.interval(0.95, n - 1, loc=row[:n].mean(), scale=stats.sem(row[:n]))
        assert (mean - half, mean + half) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_a_fixed_number_covers_as_promised_and_waiting_costs() -> None:
    """What the table shows, with fewer repetitions: the worst row lies far below the same number chosen beforehand."""
    rare = coverage.OUTPUTS[2]
    row = coverage.measure(rare, 100, 30, 1, repetitions=2000)
    assert row.covered < 0.90 < row.fixed
    normal = coverage.measure(coverage.OUTPUTS[0], 100, 1000, 1, repetitions=2000)
    assert normal.jobs == 1000
    assert min(normal.covered, normal.fixed) > 0.935


def test_it_prints_its_table() -> None:
    """A row for each output, width, least count and look."""
    command = python("-m", "benchmarks.coverage", "--repetitions", "20")
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True, timeout=120, check=True)
    assert len([line for line in done.stdout.splitlines() if line.startswith("| ")]) == 1 + 3 * 2 * 3 * 2


def test_the_documents_table_is_one_of_the_benchmark() -> None:
    """docs/stopping.md quotes rows with its columns."""
    text = (REPO / "docs" / "stopping.md").read_text(encoding="utf-8")
    assert "python -m benchmarks.coverage" in text
    for output in coverage.OUTPUTS:
        assert f"| {output.name} |" in text
