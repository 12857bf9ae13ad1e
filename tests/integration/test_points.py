"""points.csv: of each point of a sweep what NumPy and SciPy say of its rows in results.csv, to the last digit."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common import queue, samples
from common.batch import BatchSpec, JobState
from common.estimates import QUANTILES
from common.ledger import Connection, batches, keys, ranges
from common.ledger.table import record_packer
from common.options import read_options
from common.programs.program import Program
from common.submission import Submitter
from common.sweep import Sweep, all_points
from services.worker.finish import finish
from services.worker.guard import Limits
from services.worker.points import swept as columns_of
from services.worker.slice import summarise
from tests.support import OUTPUTS

REPLICATIONS = 23
SWEEP = {"axes": {"raises": [0.0, 0.25, 0.5], "flaky": [0.1, 0.2]}, "replications": REPLICATIONS}
JOBS = 6 * REPLICATIONS
#: Of the fourth point none completes, of the fifth one job, of the sixth two.
FAILED = [1, 5, 30, *range(70, 93), *range(94, 116), *range(118, 139)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points at a time."""
    monkeypatch.setattr(samples, "BLOCK_JOBS", 2 * REPLICATIONS)


def run(connection: Connection, batch: int, values: np.ndarray) -> None:
    """End all jobs of the batch; those in FAILED fail."""
    pack = record_packer(OUTPUTS).pack
    while (lease := _claim(connection, batch)) is not None:
        span = range(lease.first, lease.first + lease.count)
        states = [JobState.FAILED if index in FAILED else JobState.COMPLETED for index in span]
        raw = b"".join(
            pack(state, 1, 0, 1, 0, 0, 1.0, 0.5, 0.25, 1000, values[index - 1], values[index - 1] / 10)
            for index, state in zip(span, states, strict=True)
        )
        work = summarise(OUTPUTS, lease.first, 0.5, raw, {}, Limits(), 0)
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1)


def _claim(connection: Connection, batch: int) -> ranges.Lease | None:
    return ranges.claim(connection, (batch, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)[0]


@pytest.fixture
def swept(connection: Connection, redis_url: str, root: Path) -> BatchSpec:
    """A finished sweep with failed jobs, and with values that are not finite."""
    submitter = Submitter(connection, queue.make_app(redis_url), root)
    spec = submitter.submit(None, 1, options=read_options({"simulation": "faulty", "sweep": SWEEP}))
    values = np.random.default_rng(1).normal(50, 9, JOBS)
    values[[7, 8]], values[40] = np.nan, np.inf
    run(connection, spec.id, values)
    assert finish(connection, root, spec.id, "w")
    return batches.view(connection, spec.id).spec


def rows(path: Path) -> list[dict[str, str]]:
    """A CSV's rows as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_point_as_numpy_says_of_its_rows(root: Path, swept: BatchSpec) -> None:
    """Exactly, but for the interval, which agrees with SciPy's to twelve digits; nan is what one value cannot say."""
    place = root / str(swept.id)
    jobs, points = rows(place / "results.csv"), rows(place / "points.csv")
    assert len(points) == 6
    assert [(float(point["raises"]), float(point["flaky"])) for point in points] == [
        (raises, flaky) for raises in (0.0, 0.25, 0.5) for flaky in (0.1, 0.2)
    ]
    for number, point in enumerate(points):
        mine = jobs[number * REPLICATIONS : (number + 1) * REPLICATIONS]
        assert {(row["raises"], row["flaky"]) for row in mine} == {(point["raises"], point["flaky"])}
        for name in OUTPUTS:
            given = np.array([float(row[name]) for row in mine if row["state"] == "COMPLETED"])
            assert_right({key.removeprefix(f"{name}_"): value for key, value in point.items()}, given)


def assert_right(said: dict[str, str], given: np.ndarray) -> None:
    """A row says what NumPy and SciPy say."""
    values = given[np.isfinite(given)]
    assert (int(said["count"]), int(said["non_finite"])) == (len(values), len(given) - len(values))
    if not len(values):
        assert {said[name] for name in ("mean", "min", "max", "q0.5", "ci_low")} == {"nan"}
        return
    exact = {"mean": values.mean(), "min": values.min(), "max": values.max()}
    exact |= {f"q{which:g}": np.quantile(values, which) for which in QUANTILES}
    if len(values) > 1:
        exact |= {"standard_deviation": values.std(ddof=1)}
        exact |= {"standard_error": values.std(ddof=1) / np.sqrt(len(values))}
        interval = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
        assert (float(said["ci_low"]), float(said["ci_high"])) == pytest.approx(interval, rel=1e-12)
    else:
        assert (said["standard_deviation"], said["ci_low"]) == ("nan", "nan")
    assert {name: float(said[name]) for name in exact} == exact


def test_the_summarys_estimates(root: Path, swept: BatchSpec) -> None:
    """Over all, exactly what NumPy says of the column; no NaN."""
    place = root / str(swept.id)
    summary = json.loads((place / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    for name in OUTPUTS:
        given = np.array([float(row[name]) for row in rows(place / "results.csv") if row["state"] == "COMPLETED"])
        values, said = given[np.isfinite(given)], summary["outputs"][name]
        assert (said["count"], said["n"], said["non_finite"]) == (len(values), len(values), 3)
        exact = {"mean": values.mean(), "standard_deviation": values.std(ddof=1), "min": values.min()}
        assert {key: said[key] for key in exact} == exact
        assert said["quantiles"] == {f"{which:g}": np.quantile(values, which) for which in QUANTILES}
        counts, edges = np.histogram(values, bins=20)
        assert said["histogram"] == {"counts": counts.tolist(), "edges": edges.tolist()}


@pytest.mark.parametrize("values", [[1, 2**70], [0.5, 10**400], [1, 2**63], ["a", "\ud800"]], ids=repr)
def test_values_that_arrow_has_no_type_for(root: Path, swept: BatchSpec, values: list[object]) -> None:
    """They are text, and the same in the file."""
    points = [{"n": value} for value in values]
    column = columns_of(replace(swept, sweep={"points": points, "replications": 1}))["n"].at(np.arange(len(points)))
    assert column.to_pylist() in ([str(value) for value in values], values, ["a", "\\ud800"])
    pa.csv.write_csv(pa.table([column], names=["n"]), root / "n.csv")
    assert [row["n"] for row in rows(root / "n.csv")] == [
        "a" if v == "a" else str(v).replace("\ud800", "\\ud800") for v in values
    ]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1),
    st.booleans(),
)
def test_columns_are_the_sweeps(axes: dict[str, list[int]], zipped: bool) -> None:
    """In closed form what the sweep says of each point."""
    if zipped:
        least = min(len(values) for values in axes.values())
        axes = {name: values[:least] for name, values in axes.items()}
    sweep = Sweep("zip" if zipped else "grid", axes)
    columns = columns_of(BatchSpec(1, sweep.jobs, 1, sweep=sweep.to_dict()))
    every = {name: column.at(np.arange(sweep.size)).to_pylist() for name, column in columns.items()}
    assert list(every) == list(axes)
    assert [dict(zip(every, values, strict=True)) for values in zip(*every.values(), strict=True)] == all_points(sweep)


def test_a_sweep_with_such_a_value_finishes(connection: Connection, redis_url: str, root: Path) -> None:
    """All files are written, with every digit."""
    submitter = Submitter(connection, queue.make_app(redis_url), root)
    program = Program(("/bin/echo", "{n}"), "/")
    options = {"sweep": {"points": [{"n": 1}, {"n": 2**70}], "replications": 2}}
    spec = submitter.submit(None, 1, options=read_options(options), program=program, outputs_of_program=OUTPUTS)
    run(connection, spec.id, np.arange(4.0))
    assert finish(connection, root, spec.id, "w")
    assert [row["n"] for row in rows(root / str(spec.id) / "points.csv")] == ["1", str(2**70)]
    assert [row["n"] for row in rows(root / str(spec.id) / "results.csv")] == ["1", "1", str(2**70), str(2**70)]


def test_only_a_sweep_has_points(connection: Connection, redis_url: str, root: Path) -> None:
    """Of other batches there is no such file; nothing is left over of either."""
    submitter = Submitter(connection, queue.make_app(redis_url), root)
    plain = submitter.submit(5, 1)
    run(connection, plain.id, np.arange(5.0))
    assert finish(connection, root, plain.id, "w")
    found = {path.name for path in (root / str(plain.id)).iterdir()}
    assert found == {"batch.json", "results.csv", "results.parquet", "summary.json"}


def test_a_sweep_written_again(connection: Connection, root: Path, swept: BatchSpec) -> None:
    """As after a requeue: the file is replaced, and nothing is left of the way there."""
    place = root / str(swept.id)
    before = (place / "points.csv").read_bytes()
    (place / "points.csv").write_text("old")
    connection.command("HDEL", keys.batch(swept.id), "finished")
    connection.command("SADD", keys.FINISHING, swept.id)
    assert finish(connection, root, swept.id, "w")
    assert (place / "points.csv").read_bytes() == before
    assert {path.name for path in place.iterdir()} == {
        "batch.json", "results.csv", "results.parquet", "points.csv", "summary.json"
    }  # fmt: skip
