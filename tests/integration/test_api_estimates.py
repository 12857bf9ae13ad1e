"""GET /batches/<batch>/estimates and /points: what NumPy and SciPy say of results.csv."""

import csv
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy import stats

from common.ledger import Connection
from services.worker.finish import finish as write_results
from tests.integration.api_support import assert_problem
from tests.support import finish

SWEEP = {"axes": {"raises": [0.0, 0.25, 0.5], "flaky": [0.1, 0.2]}, "replications": 20}


def column(root: Path, batch: int, name: str, **where: float) -> np.ndarray:
    """An output's values in results.csv, of the rows with these parameters."""
    with (root / str(batch) / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(float(row[key]) == value for key, value in where.items())]
    return np.array([float(row[name]) for row in rows if row["state"] == "COMPLETED"])


def swept(client: FlaskClient, connection: Connection, root: Path) -> int:
    """A finished sweep of six points whose values are drawn here."""
    body = {"simulation": "faulty", "sweep": SWEEP, "seed": 1}
    batch = int(client.post("/batches", json=body).get_json()["id"])
    drawn = np.random.default_rng(1).normal(50, 9, 120)
    finish(connection, batch, dict(enumerate(drawn.tolist(), 1)))
    assert write_results(connection, root, batch, "test")
    return batch


def assert_right(found: dict[str, float], values: np.ndarray, confidence: float) -> None:
    """The estimate is that of the sample."""
    low, high = stats.t.interval(confidence, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    wanted = {
        "count": len(values), "non_finite": 0, "mean": values.mean(), "standard_deviation": values.std(ddof=1),
        "standard_error": stats.sem(values), "ci_low": low, "ci_high": high, "min": values.min(), "max": values.max(),
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-12)
    counts, edges = np.histogram(values, bins=20)
    assert found["histogram"] == {"counts": counts.tolist(), "edges": edges.tolist()}
    for which, value in found["quantiles"].items():  # type: ignore[attr-defined]
        assert value == pytest.approx(np.quantile(values, float(which)), rel=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_overall(client: FlaskClient, connection: Connection, root: Path, confidence: float) -> None:
    """Over all completed jobs, each output."""
    batch = swept(client, connection, root)
    said = client.get(f"/batches/{batch}/estimates?confidence={confidence}").get_json()
    assert (said["state"], said["done"], said["jobs"], list(said["outputs"])) == (
        "COMPLETED",
        120,
        120,
        ["sum", "mean"],
    )
    for name, found in said["outputs"].items():
        values = column(root, batch, name)
        assert_right(found, values, confidence)


def test_point_by_point(client: FlaskClient, connection: Connection, root: Path) -> None:
    """In pages that lead to each other; each point's parameters, and the estimates of its jobs alone."""
    batch = swept(client, connection, root)
    found, address, pages = [], f"/batches/{batch}/points?limit=4&confidence=0.9", 0
    while address:
        page = client.get(address).get_json()
        assert page["num_points"] == 6
        found += page["points"]
        address, pages = page["next"], pages + 1
    assert (pages, [point["point"] for point in found]) == (2, list(range(6)))
    assert [tuple(point["parameters"].values()) for point in found] == [
        (raises, flaky) for raises in (0.0, 0.25, 0.5) for flaky in (0.1, 0.2)
    ]
    for point in found:
        for name, said in point["outputs"].items():
            assert_right(said, column(root, batch, name, **point["parameters"]), 0.9)


def test_before_anything_has_completed(client: FlaskClient) -> None:
    """Nothing is known: null, and valid JSON."""
    batch = client.post("/batches", json={"jobs": 3}).get_json()["id"]
    response = client.get(f"/batches/{batch}/estimates")
    found = response.get_json()["outputs"]["mean"]
    assert (found["count"], found["mean"], found["ci_low"], found["quantiles"]) == (0, None, None, {})
    assert "NaN" not in response.text


@pytest.mark.parametrize("confidence", ["0", "1", "-0.5", "95", "nan", "inf", "x", "", "0.95%"])
@pytest.mark.parametrize("what", ["estimates", "points"])
def test_confidence_out_of_range(client: FlaskClient, what: str, confidence: str) -> None:
    """It is a part between 0 and 1."""
    batch = client.post("/batches", json={"sweep": {"points": [{}], "replications": 3}}).get_json()["id"]
    assert_problem(client.get(f"/batches/{batch}/{what}?confidence={confidence}"), 400, "confidence")


def test_what_is_no_sweep_has_no_points(client: FlaskClient) -> None:
    """400 that says so; a batch that is not there is 404; so is a page that cannot be."""
    batch = client.post("/batches", json={"jobs": 3}).get_json()["id"]
    body = assert_problem(client.get(f"/batches/{batch}/points"), 400, "batch")
    assert "is no sweep" in body["detail"]
    assert_problem(client.get("/batches/99/estimates"), 404, "batch")
    assert_problem(client.get("/batches/99/points"), 404, "batch")
    assert_problem(client.get(f"/batches/{batch}/points?limit=0"), 400, "limit")
