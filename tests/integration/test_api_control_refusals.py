"""The routes that act on a batch refuse what is wrong: the error names the field, and nothing has changed."""

import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common import outputs
from common.ledger import Connection
from tests.integration.api_support import TOKEN, MakeClient, assert_problem
from tests.integration.ledger_support import commit, run_all, take
from tests.support import dump

JOBS = 6
ROUTES = [
    ("POST", "cancel", {}),
    ("POST", "hold", {}),
    ("POST", "release", {}),
    ("POST", "requeue", {}),
    ("PATCH", "", {"throttle": 1}),
    ("GET", "explain", None),
]


def send(client: FlaskClient, method: str, path: str, body: object = None) -> TestResponse:
    """A request with a JSON body, which may be null."""
    return client.open(path, method=method, data=json.dumps(body), content_type="application/json")


def path_of(batch: object, verb: str) -> str:
    """The route's path."""
    return f"/batches/{batch}" + (f"/{verb}" if verb else "")


@pytest.mark.parametrize(("method", "verb", "body"), ROUTES)
def test_an_unknown_batch_is_not_found(
    client: FlaskClient, connection: Connection, batch: int, method: str, verb: str, body: object
) -> None:
    """404 that names it; what is no number is no route."""
    before = dump(connection)
    said = assert_problem(send(client, method, path_of(99, verb), body), 404, "batch")
    assert "no batch 99" in said["detail"]
    for name in ("x", "-1", "1.5"):
        assert_problem(send(client, method, path_of(name, verb), body), 404)
    assert dump(connection) == before


@pytest.mark.parametrize(("method", "verb", "body"), ROUTES[1:3] + ROUTES[4:5])
def test_an_ended_batch_is_a_conflict(
    client: FlaskClient, connection: Connection, ended: int, method: str, verb: str, body: object
) -> None:
    """409: there is nothing left to hold, release or throttle."""
    before = dump(connection)
    said = assert_problem(send(client, method, path_of(ended, verb), body), 409, "batch")
    assert "has ended" in said["detail"]
    assert dump(connection) == before


def test_conflicts_of_a_requeue(client: FlaskClient, connection: Connection, batch: int) -> None:
    """What is missing shows at the end; and while the results files are written, it cannot be opened again."""
    assert_problem(send(client, "POST", path_of(batch, "requeue"), {"missing": True}), 409, "missing")
    run_all(connection, failed=[2])
    assert_problem(send(client, "POST", path_of(batch, "requeue"), {}), 409, "batch")


def test_requeue_while_it_runs(client: FlaskClient, connection: Connection, batch: int) -> None:
    """A job that failed may be run again before the others have ended."""
    lease = take(connection)
    commit(connection, lease, 1, failed=[1])
    assert send(client, "POST", path_of(batch, "requeue"), {}).get_json()["requeued"] == 1


BAD: list[tuple[str, str, object, str]] = [
    ("POST", "cancel", {"jobs": "x"}, "jobs"),
    ("POST", "cancel", {"jobs": ""}, "jobs"),
    ("POST", "cancel", {"jobs": "1-7"}, "jobs"),
    ("POST", "cancel", {"jobs": 0}, "jobs"),
    ("POST", "cancel", {"jobs": -1}, "jobs"),
    ("POST", "cancel", {"jobs": 10**400}, "jobs"),
    ("POST", "cancel", {"jobs": True}, "jobs"),
    ("POST", "cancel", {"jobs": False}, "jobs"),
    ("POST", "cancel", {"jobs": 1.5}, "jobs"),
    ("POST", "cancel", {"jobs": [1]}, "jobs"),
    ("POST", "cancel", {"jobs": {}}, "jobs"),
    ("POST", "cancel", {"jobs": None}, "jobs"),
    ("POST", "cancel", {"state": "PENDING", "jobs": None}, "jobs"),
    ("POST", "cancel", {"state": None}, "state"),
    ("POST", "cancel", {"state": None, "jobs": 1}, "state"),
    ("POST", "cancel", {"state": "COMPLETED"}, "state"),
    ("POST", "cancel", {"state": ""}, "state"),
    ("POST", "cancel", {"state": 0}, "state"),
    ("POST", "cancel", {"state": []}, "state"),
    ("POST", "cancel", {"state": False}, "state"),
    ("POST", "cancel", {"state": ["PENDING"]}, "state"),
    ("POST", "cancel", {"job": 1}, "job"),
    ("POST", "hold", {"held": True}, "held"),
    ("POST", "release", {"x": 1}, "x"),
    ("PATCH", "", {}, "body"),
    ("PATCH", "", {"throttle": -1}, "throttle"),
    ("PATCH", "", {"throttle": "x"}, "throttle"),
    ("PATCH", "", {"throttle": None}, "throttle"),
    ("PATCH", "", {"throttle": True}, "throttle"),
    ("PATCH", "", {"throttle": 1.5}, "throttle"),
    ("PATCH", "", {"throttle": 1, "priority": 101}, "priority"),
    ("PATCH", "", {"priority": []}, "priority"),
    ("PATCH", "", {"max_fails": None}, "max_fails"),
    ("PATCH", "", {"max_fails": "many"}, "max_fails"),
    ("PATCH", "", {"max_fails": -1}, "max_fails"),
    ("PATCH", "", {"max_fails": True, "throttle": 1}, "max_fails"),
    ("PATCH", "", {"hold": True}, "hold"),
    ("PATCH", "", {"retries": 1}, "retries"),
    ("POST", "requeue", {"states": "FAILED"}, "states"),
    ("POST", "requeue", {"states": ["nonsense"]}, "states"),
    ("POST", "requeue", {"states": [1]}, "states"),
    ("POST", "requeue", {"states": None}, "states"),
    ("POST", "requeue", {"states": None, "missing": True}, "states"),
    ("POST", "requeue", {"states": ["PENDING"]}, "states"),
    ("POST", "requeue", {"states": ["RUNNING", "FAILED"]}, "states"),
    ("POST", "requeue", {"states": ["COMPLETED"]}, "states"),
    ("POST", "requeue", {"missing": 1}, "missing"),
    ("POST", "requeue", {"missing": None}, "missing"),
    ("POST", "requeue", {"state": "FAILED"}, "state"),
    *((method, verb, body, "body") for method, verb, _ in ROUTES[:5] for body in ([], "x", 5, None)),
    *(("GET", f"explain?job={job}", None, "job") for job in ("0", "7", "x", "-1", "", "1.5", "1&job=2", "9" * 30)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "verb", "body", "field"), BAD)
def test_bad_input_names_the_field_and_changes_nothing(
    client: FlaskClient,
    connection: Connection,
    root: Path,
    batch: int,
    method: str,
    verb: str,
    body: object,
    field: str,
) -> None:
    """400 as a problem document; ledger and volume are as before."""
    before = dump(connection)
    assert_problem(send(client, method, path_of(batch, verb), body), 400, field)
    assert dump(connection) == before
    assert not (root / str(batch) / outputs.CONTROL_NAME).exists()


@pytest.mark.parametrize(("method", "verb", "sent"), ROUTES[:5])
def test_a_body_that_is_not_json(
    client: FlaskClient, connection: Connection, batch: int, method: str, verb: str, sent: object
) -> None:
    """Never the server's error, and nothing happens."""
    before, path = dump(connection), path_of(batch, verb)
    for data in (b"{", b"\xff\xfe", b"[" * 100_000, b'{"jobs": ' + b"9" * 5000 + b"}", b" "):
        assert_problem(client.open(path, method=method, data=data, content_type="application/json"), 400, "body")
    assert_problem(client.open(path, method=method, data=b"jobs=1", content_type="text/plain"), 415)
    assert_problem(client.open(path, method=method, data=b" " * 1_000_001, content_type="application/json"), 413)
    assert dump(connection) == before


@pytest.mark.parametrize(("method", "verb", "body"), ROUTES)
def test_the_token_is_needed(
    connection: Connection, make_client: MakeClient, batch: int, method: str, verb: str, body: object
) -> None:
    """Every route is closed without it, before anything else is looked at."""
    guarded, before = make_client(api_token=TOKEN), dump(connection)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        for number in (batch, 99):
            response = guarded.open(path_of(number, verb), method=method, json=body, headers=headers)
            assert_problem(response, 401)
    assert dump(connection) == before
    good = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.open(path_of(batch, verb), method=method, json=body, headers=good).status_code == 200


@pytest.mark.parametrize(("method", "verb", "body"), ROUTES[:5])
def test_a_page_of_another_site_cannot_act(
    client: FlaskClient, connection: Connection, batch: int, method: str, verb: str, body: object
) -> None:
    """A browser says where the request comes from."""
    before = dump(connection)
    response = client.open(path_of(batch, verb), method=method, json=body, headers={"Sec-Fetch-Site": "cross-site"})
    assert_problem(response, 403)
    assert dump(connection) == before


@pytest.mark.parametrize(("method", "verb", "body"), ROUTES)
def test_without_redis(make_client: MakeClient, method: str, verb: str, body: object) -> None:
    """503 that says so, and may be tried again."""
    client = make_client(redis_url="unix:///tmp/there-is-no-such.sock")
    response = client.open(path_of(1, verb), method=method, json=body)
    assert_problem(response, 503)
    assert response.headers["Retry-After"]
