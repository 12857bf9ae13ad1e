"""The page for people: with a batch, without one, without Redis."""

from pathlib import Path

import numpy as np
from flask.testing import FlaskClient
from scipy import stats

from common import queue
from common.batch import BatchSpec
from common.intervals import plus_minus
from common.ledger import Connection, ranges
from common.options import read_options
from common.submission import Submitter
from services.worker.finish import finish as write_results
from tests.integration.api_support import DEAD, MakeClient, assert_guarded
from tests.support import finish


def test_page(client: FlaskClient, connection: Connection, spec: BatchSpec) -> None:
    """The page shows health, progress, jobs and links; before the end it refreshes, afterwards it offers a rerun."""
    text = client.get("/").text
    assert "PENDING" in text
    assert 'http-equiv="refresh"' in text
    assert "<form" not in text
    finish(connection, spec.id)
    response = client.get("/")
    assert_guarded(response)
    assert response.mimetype == "text/html"
    assert f"Batch {spec.id}" in response.text
    assert "5 of 5 jobs done" in response.text
    assert "/outputs/job_5.csv" in response.text
    assert '<form method="post" action="/rerun">' in response.text
    assert "refresh" not in response.text
    assert "<script" not in response.text


def test_page_shows_the_uncertainty(client: FlaskClient, connection: Connection, spec: BatchSpec, root: Path) -> None:
    """Each output's mean with its interval, as SciPy has it; and, once they are written, the results files."""
    sums = [10.0, 20.0, 40.0, 20.0, 30.0]
    finish(connection, spec.id, dict(enumerate(sums, 1)))
    half = stats.t.ppf(0.975, 4) * np.std(sums, ddof=1) / np.sqrt(5)
    text = client.get("/").text
    assert f"sum: mean <b>{plus_minus(24.0, half)} (95 %)</b>" in text
    assert "results.csv" not in text
    assert write_results(connection, root, spec.id, "w")
    text = client.get("/").text
    assert '<a href="/outputs/results.csv">' in text
    assert '<a href="/outputs/summary.json">' in text
    assert "points.csv" not in text


def test_page_of_a_sweep(client: FlaskClient, connection: Connection, redis_url: str, root: Path) -> None:
    """Point by point; of many the first ones, and a link to the rest."""
    options = read_options(
        {
            "simulation": "european_option",
            "sweep": {"axes": {"sigma": [0.1, 0.2, 0.3], "strike": list(range(80, 120))}, "replications": 2},
        }
    )
    spec = Submitter(connection, queue.make_app(redis_url), root).submit(None, 1, options=options)
    lease, _ = ranges.claim(connection, (spec.id, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
    assert lease is not None
    assert lease.first == 1
    table = client.get(f"/?batch={spec.id}").text
    assert "<h2>Points</h2>" in table
    assert table.count("<td>0.1</td><td>") == 20
    assert "<td>80</td><td>0</td><td>unknown</td>" in table
    assert "The first 20 of 120 are shown" in table
    assert f'/batches/{spec.id}/points?offset=20"' in table
    assert "mean <b>" not in table


def test_page_without_a_batch(client: FlaskClient) -> None:
    """Before the first batch the page says so."""
    assert "not been submitted yet" in client.get("/").text


def test_page_without_redis(make_client: MakeClient) -> None:
    """While Redis is away the page still renders, and says what is wrong."""
    response = make_client(redis_url=DEAD).get("/")
    assert response.status_code == 200
    assert "Redis does not answer" in response.text


def test_page_of_a_big_batch(client: FlaskClient, connection: Connection, redis_url: str, root: Path) -> None:
    """Of a million jobs the page shows the first and links to the rest."""
    spec = Submitter(connection, queue.make_app(redis_url), root).submit(1_000_000, 1, startup=True)
    text = client.get("/").text
    assert f"{spec.id}_200<" in text
    assert f"{spec.id}_201<" not in text
    assert "/jobs?offset=200" in text


def test_stylesheet(client: FlaskClient) -> None:
    """The page's own style is served."""
    with client.get("/static/page.css") as response:
        assert (response.status_code, response.mimetype) == (200, "text/css")
