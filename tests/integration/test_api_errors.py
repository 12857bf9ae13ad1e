"""What goes wrong in the API is a problem document that tells nothing of our insides."""

import pytest
from flask.testing import FlaskClient

from common.ledger import Connection
from tests.integration.api_support import DEAD, MakeClient, assert_problem


def test_unknown_route_and_method(client: FlaskClient) -> None:
    """404 and 405 are problems too; 405 says what is allowed."""
    assert_problem(client.get("/nothing"), 404)
    response = client.delete("/jobs")
    assert_problem(response, 405)
    assert "GET" in response.headers["Allow"]
    assert_problem(client.get("/rerun"), 405)


def test_unforeseen_error_is_a_bare_500(
    make_client: MakeClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours is a problem document that tells nothing of our insides."""
    client = make_client()

    def broken(*_args: object) -> None:
        raise RuntimeError("internal detail")

    monkeypatch.setattr("services.api.jobs.job_rows", broken)
    monkeypatch.setattr("common.submission.Submitter.current", broken)
    body = assert_problem(client.get("/jobs"), 500)
    assert "internal detail" not in str(body)


@pytest.mark.parametrize(("method", "path"), [("GET", "/jobs"), ("GET", "/jobs/count"), ("POST", "/rerun")])
def test_without_redis(make_client: MakeClient, method: str, path: str) -> None:
    """Routes that need Redis are 503 with Retry-After, not a traceback, while it is away."""
    response = make_client(redis_url=DEAD).open(path, method=method)
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0
