"""POST /rerun: the start-up batch once more, when it has ended."""

from flask.testing import FlaskClient

from common.batch import BatchSpec
from common.ledger import Connection
from tests.integration.api_support import assert_problem
from tests.support import finish


def test_rerun(client: FlaskClient, connection: Connection, spec: BatchSpec) -> None:
    """409 while the batch runs; then 202 with the new batch, and where its jobs are."""
    assert_problem(client.post("/rerun"), 409)
    finish(connection, spec.id)
    response = client.post("/rerun")
    assert response.status_code == 202
    body = response.get_json()
    assert (body["num_jobs"], response.headers["Location"]) == (5, "/jobs")
    assert body["batch"] > spec.id
    assert body["seed"] != spec.seed
    assert client.get("/jobs").get_json()["batch"] == body["batch"]
    assert_problem(client.post("/rerun"), 409)


def test_rerun_from_the_page(client: FlaskClient, connection: Connection, spec: BatchSpec) -> None:
    """A browser's form gets the page again."""
    finish(connection, spec.id)
    response = client.post("/rerun", headers={"Accept": "text/html,*/*;q=0.5", "Sec-Fetch-Site": "same-origin"})
    assert (response.status_code, response.headers["Location"]) == (303, "/")


def test_rerun_before_the_first_batch(client: FlaskClient) -> None:
    """Without a batch there is nothing to run again: 409."""
    assert_problem(client.post("/rerun"), 409)


def test_large_body_is_refused(client: FlaskClient) -> None:
    """A body beyond a megabyte does no harm."""
    assert client.post("/rerun", data=b"x" * 2_000_000).status_code in (409, 413)
