"""POST /batches: every good and bad submit, and the Idempotency-Key."""

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common import outputs, queue
from common.batch import BatchSpec
from common.ledger import Connection, batches, keys, ranges
from common.provenance import environment
from common.settings import MAX_JOBS, MAX_SEED
from common.simulations import registry
from tests.integration.api_support import MakeClient, assert_problem
from tests.support import dump


@pytest.mark.parametrize(
    ("body", "jobs", "seed"),
    [
        ({"jobs": 3, "seed": 42}, 3, 42),
        ({"jobs": 1}, 1, None),
        ({"jobs": 1000.0, "seed": 7.0}, 1000, 7),
        ({"jobs": 1e2, "seed": None}, 100, None),
        ({"sweep": {"points": [{}], "replications": 1000.0}}, 1000, None),
        ({"jobs": 2, "seed": MAX_SEED, "job_seconds": 0.5}, 2, MAX_SEED),
        ({"jobs": 2, "seed": 0, "job_seconds": 3}, 2, 0),
        ({"jobs": MAX_JOBS}, MAX_JOBS, None),
    ],
)
def test_submit(
    client: FlaskClient, connection: Connection, root: Path, body: dict[str, Any], jobs: int, seed: int | None
) -> None:
    """202 with the id and where to look; the batch is in the ledger, on the volume and in the queue."""
    response = client.post("/batches", json=body)
    assert response.status_code == 202, response.text
    said = response.get_json()
    assert response.headers["Location"] == said["url"] == f"/batches/{said['id']}"
    spec = batches.view(connection, said["id"]).spec
    assert (said["jobs"], said["seed"]) == (spec.jobs, spec.seed) == (jobs, spec.seed if seed is None else seed)
    assert spec.job_seconds == body.get("job_seconds", 0)
    assert outputs.read_spec(root / str(spec.id)) == spec
    waiting, queued = ranges.owed(connection, queue.QUEUE)
    assert waiting == queued == min(jobs, 64)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "jobs"),
        ({"jobs": None}, "jobs"),
        ({"seed": 1}, "jobs"),
        ({"jobs": "5"}, "jobs"),
        ({"jobs": 1.5}, "jobs"),
        ({"jobs": True}, "jobs"),
        ({"jobs": [5]}, "jobs"),
        ({"jobs": {}}, "jobs"),
        ({"jobs": 0}, "jobs"),
        ({"jobs": -1}, "jobs"),
        ({"jobs": MAX_JOBS + 1}, "jobs"),
        ({"jobs": 1e300}, "jobs"),
        ({"jobs": float("nan")}, "jobs"),
        ({"jobs": float("inf")}, "jobs"),
        ({"jobs": 5, "seed": "1"}, "seed"),
        ({"jobs": 5, "seed": 0.5}, "seed"),
        ({"jobs": 5, "seed": False}, "seed"),
        ({"jobs": 5, "seed": -1}, "seed"),
        ({"jobs": 5, "seed": MAX_SEED + 1}, "seed"),
        ({"jobs": 5, "job_seconds": "1"}, "job_seconds"),
        ({"jobs": 5, "job_seconds": None}, "job_seconds"),
        ({"jobs": 5, "job_seconds": True}, "job_seconds"),
        ({"jobs": 5, "job_seconds": -0.1}, "job_seconds"),
        ({"jobs": 5, "job_seconds": 86401}, "job_seconds"),
        ({"jobs": 5, "job_seconds": float("nan")}, "job_seconds"),
        ({"jobs": 5, "job_seconds": float("inf")}, "job_seconds"),
        pytest.param({"jobs": 5, "job_seconds": 10**400}, "job_seconds"),
        ({"jobs": 5, "job": 5}, "job"),
        ({"jobs": 5, "startup": True}, "startup"),
        ({"jobs": 5, "": 1}, ""),
        ({"jobs": 5, "\ud800": 1}, r"\ud800"),
        ([], "body"),
        ([{"jobs": 5}], "body"),
        ("jobs", "body"),
        (5, "body"),
        (None, "body"),
    ],
)
def test_a_bad_submit_names_the_field_and_leaves_nothing(
    client: FlaskClient, connection: Connection, root: Path, body: object, field: str
) -> None:
    """400 as a problem document; no key, no file, no message."""
    response = client.post("/batches", data=json.dumps(body), content_type="application/json")
    assert_problem(response, 400, field)
    assert dump(connection) == {}
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"jobs": 5,}', "application/json", 400),
        (b"\xff\xfe\x00", "application/json", 400),
        (b'{"jobs": ' + b"9" * 5000 + b"}", "application/json", 400),
        pytest.param(b"[" * 100_000, "application/json", 400),
        (b'{"jobs": 5}', "text/plain", 415),
        (b'{"jobs": 5}', "", 415),
        (b"jobs=5", "application/x-www-form-urlencoded", 415),
        (b'{"jobs": 5}' + b" " * 1_000_000, "application/json", 413),
    ],
)
def test_a_body_that_is_not_json(
    client: FlaskClient, connection: Connection, root: Path, data: bytes, content_type: str, status: int
) -> None:
    """Whatever is sent, the answer is a problem of the client's kind, and nothing is left."""
    field = "body" if status == 400 else None
    assert_problem(client.post("/batches", data=data, content_type=content_type), status, field)
    assert dump(connection) == {}
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("path", ["/batches", "/batches/1/cancel"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"jobs": 5,}', "expecting property name enclosed in double quotes at line 1, column 12"),
        (b'{"jobs": 5\n "seed": 7}', "expecting ',' delimiter at line 2, column 2"),
        (b"jobs=5", "expecting value at line 1, column 1"),
        (b'{"a": "\xe4"}', "it is not UTF-8 at byte 8"),
        (b" ", "it is empty"),
        (b"9" * 5000, "a number in it has too many digits"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"jobs": 1, "parameters": {"u": ' + b"[" * 150 + b"]" * 150 + b"}}", "it is nested too deeply"),
    ],
)
def test_where_a_body_is_not_json(client: FlaskClient, path: str, data: bytes, said: str) -> None:
    """What is wrong, with line and column, wherever JSON is sent."""
    problem = assert_problem(client.post(path, data=data, content_type="application/json"), 400, "body")
    assert problem["detail"] == f"The body is not valid JSON: {said}"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (rb'{"jobs": 5, "parameters": {"k": ["\ud800"]}}', "parameters"),
        (rb'{"jobs": 5, "simulation": "\udcff"}', "simulation"),
        (rb'{"jobs": 5, "\ud800": 1}', r"\ud800"),
        (rb'["\ud800"]', "body"),
    ],
)
def test_half_a_character_is_no_text(client: FlaskClient, connection: Connection, data: bytes, field: str) -> None:
    """JSON can name it, and neither a file nor a program could hold it."""
    problem = assert_problem(client.post("/batches", data=data, content_type="application/json"), 400, field)
    assert "which is half of a character" in problem["detail"]
    assert dump(connection) == {}


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"jobs": 1, "jobs": 2}', "jobs"),
        (b'{"jobs": 1, "parameters": {"raises": 0, "kills": 0, "raises": 1}}', "raises"),
        (b'{"seed": 1, "jobs": 1, "sweep": {"points": [{"raises": 0}, {"kills": 0, "kills": 0}]}}', "kills"),
        (b'{"": 1, "": 1}', ""),
    ],
)
def test_a_key_that_is_there_twice_is_named(
    client: FlaskClient, connection: Connection, root: Path, data: bytes, field: str
) -> None:
    """Whichever of the two is meant, wherever in the body it is; nothing is left."""
    problem = assert_problem(client.post("/batches", data=data, content_type="application/json"), 400, field)
    assert problem["detail"] == f"The body is ambiguous: {field!r} is there twice in one object; give it once"
    assert_problem(client.post("/batches/1/cancel", data=data, content_type="application/json"), 400, field)
    assert dump(connection) == {}
    assert list(root.iterdir()) == []


def keyed(client: FlaskClient, key: str, **body: object) -> TestResponse:
    """Submit with an Idempotency-Key."""
    return client.post("/batches", json=body, headers={"Idempotency-Key": key})


def test_the_same_key_gives_the_same_batch(client: FlaskClient, connection: Connection) -> None:
    """However often it is sent, with the seed or without; another key is another batch."""
    first = keyed(client, "k", jobs=5)
    seed = first.get_json()["seed"]
    assert keyed(client, "k", jobs=5).get_json() == first.get_json()
    assert keyed(client, "k", jobs=5, seed=seed).get_json() == first.get_json()
    assert keyed(client, "k" * 200, jobs=5).get_json()["id"] != first.get_json()["id"]
    assert connection.command("ZCARD", keys.BATCHES) == 2


def test_a_key_of_a_batch_that_redis_has_forgotten(client: FlaskClient, connection: Connection) -> None:
    """503, to be tried again, until the batch has been rebuilt from the volume; other keys are taken."""
    assert keyed(client, "k", jobs=5).status_code == 202
    connection.command("FLUSHALL")
    response = keyed(client, "k", jobs=5)
    assert_problem(response, 503, "Idempotency-Key")
    assert response.headers["Retry-After"]
    assert keyed(client, "other", jobs=5).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {"jobs": 6},
        {"jobs": 5, "seed": 2},
        pytest.param({"jobs": 5, "seed": 1, "job_seconds": 1}),
    ],
)
def test_the_same_key_with_another_payload_is_a_conflict(
    client: FlaskClient, connection: Connection, body: dict[str, Any]
) -> None:
    """A client that mixes up its keys hears so instead of getting another batch than it asked for."""
    assert keyed(client, "k", jobs=5, seed=1).status_code == 202
    assert_problem(keyed(client, "k", **body), 409, "Idempotency-Key")
    assert connection.command("ZCARD", keys.BATCHES) == 1


def test_a_key_that_is_too_long(client: FlaskClient, connection: Connection) -> None:
    """201 characters are refused before anything is done."""
    assert_problem(keyed(client, "k" * 201, jobs=5), 400, "Idempotency-Key")
    assert dump(connection) == {}


def test_a_bad_payload_does_not_use_up_the_key(client: FlaskClient) -> None:
    """A client that corrects its mistake may keep its key."""
    assert_problem(keyed(client, "k", jobs=0), 400, "jobs")
    assert keyed(client, "k", jobs=5).status_code == 202


def test_without_redis(make_client: MakeClient, root: Path) -> None:
    """503 that says so, and no directory is left."""
    client = make_client(redis_url="unix:///tmp/there-is-no-such.sock")
    assert_problem(client.post("/batches", json={"jobs": 5}), 503)
    assert_problem(client.get("/batches"), 503)
    assert list(root.iterdir()) == []


def test_specs_are_the_same_everywhere(client: FlaskClient, connection: Connection, root: Path) -> None:
    """What the API says, what the ledger holds and what lies on the volume are one specification."""
    batch = client.post("/batches", json={"jobs": 5, "seed": 3}).get_json()["id"]
    spec = outputs.read_spec(root / str(batch))
    assert spec is not None
    given = {"environment": environment(registry.find("random_numbers")), "command": "batchsim run --seed 3 --jobs 5"}
    wanted = BatchSpec(batch, 5, 3, created=spec.created, **given)
    assert spec == batches.view(connection, batch).spec == wanted
