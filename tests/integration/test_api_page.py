"""The page for people: with a batch, without one, without Redis."""

from pathlib import Path

from flask.testing import FlaskClient

from common import queue
from common.batch import BatchSpec
from common.ledger import Connection
from common.submission import Submitter
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
