"""What the API says of a batch that still runs is, to the last digit, what results.csv says of those jobs later."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy import stats

from common.estimates import QUANTILES
from common.ledger import Connection, batches, ranges
from services.worker.finish import finish
from tests.support import OUTPUTS, slice_of

REPLICATIONS = 67
SWEEP = {"axes": {"raises": [0.0, 0.25, 0.5]}, "replications": REPLICATIONS}


def steps(connection: Connection, batch: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Commit some jobs at a time, of which some fail, in an order that wanders; yields which have completed so far."""
    done: set[int] = set()
    while True:
        lease, _ = ranges.claim(connection, (batch, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
        if lease is None:
            return
        count = int(rng.integers(1, lease.count + 1))
        span = range(lease.first, lease.first + count)
        failed = [index for index in span if rng.random() < 0.1]
        work = slice_of(lease.first, rng.normal(50, 9, count).tolist(), failed=failed)
        ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1, give_back=True)
        done |= set(span) - set(failed)
        yield sorted(done)


def columns(root: Path, batch: int) -> dict[str, np.ndarray]:
    """Each output's column of results.csv."""
    with (root / str(batch) / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in OUTPUTS}


def assert_exact(said: dict[str, Any], values: np.ndarray) -> None:
    """NumPy's and SciPy's answers: equal, and the interval to twelve digits."""
    assert said["count"] == len(values)
    if not len(values):
        assert said["mean"] is None
        return
    assert (said["mean"], said["min"], said["max"]) == (values.mean(), values.min(), values.max())
    assert said["quantiles"] == {f"{which:g}": np.quantile(values, which) for which in QUANTILES}
    if len(values) > 1:
        assert said["standard_deviation"] == values.std(ddof=1)
        interval = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
        assert (said["ci_low"], said["ci_high"]) == pytest.approx(interval, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_at_every_moment(client: FlaskClient, connection: Connection, root: Path, seed: int) -> None:
    """Over all jobs and point by point, after each commit; in the end it is what the files say."""
    batch = int(client.post("/batches", json={"simulation": "faulty", "sweep": SWEEP, "seed": 1}).get_json()["id"])
    seen = []
    for done in steps(connection, batch, np.random.default_rng(seed)):
        overall = client.get(f"/batches/{batch}/estimates").get_json()["outputs"]
        points = client.get(f"/batches/{batch}/points").get_json()["points"]
        seen.append((done, overall, points))
    assert batches.view(connection, batch).ended
    assert finish(connection, root, batch, "w")
    table = columns(root, batch)
    assert len(seen) > 60
    for done, overall, points in seen:
        for name in OUTPUTS:
            assert_exact(overall[name], table[name][np.array(done) - 1])
            for number, point in enumerate(points):
                mine = [index - 1 for index in done if (index - 1) // REPLICATIONS == number]
                assert_exact(point["outputs"][name], table[name][mine])
    last = client.get(f"/batches/{batch}/estimates").get_json()["outputs"]
    assert last == seen[-1][1]
