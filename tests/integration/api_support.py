"""What tests of the API share beside fixtures: addresses, a token, and what every answer must be like."""

from collections.abc import Callable
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

DEAD = "unix:///tmp/there-is-no-such.sock"
TOKEN = "secret-token"
MakeClient = Callable[..., FlaskClient]


def assert_problem(response: TestResponse, status: int, field: str | None = None) -> dict[str, Any]:
    """The response is an RFC 9457 problem of this status, complete, and without a trace of our code."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = response.get_json(force=True)
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["instance"] == response.request.path
    assert body["title"]
    assert body["detail"]
    assert body.get("field") == field
    assert "Traceback" not in response.text
    assert_guarded(response)
    return body


def assert_guarded(response: TestResponse) -> None:
    """The headers that keep a browser from running or leaking anything."""
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
