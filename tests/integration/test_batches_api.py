"""Batches over HTTP: every good and bad submit, the pages, the client and the command line against a real server."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from batchsim.client import Client
from common import outputs, queue
from common.batch import BatchSpec
from common.errors import BatchSimError, BrokerUnavailable, InvalidInput
from common.ledger import Connection, batches, keys, ranges
from common.settings import MAX_JOBS, MAX_SEED, Settings
from common.submission import Submitter
from services.api.app import create_app
from tests import support
from tests.conftest import StartWorker
from tests.support import dump, finish, free_port

TOKEN = "secret-token"
MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client(redis_url: str, root: Path) -> Iterator[MakeClient]:
    """Makes clients of apps with the given settings, and closes what the apps opened."""
    apps: list[Flask] = []

    def make(**settings: object) -> FlaskClient:
        given: dict[str, Any] = {"redis_url": redis_url, "output_dir": root, "min_free_mb": 0, **settings}
        app = create_app(Settings(_env_file=None, **given))  # type: ignore[call-arg]
        apps.append(app)
        return app.test_client()

    yield make
    for app in apps:
        app.extensions["batchsim"].connection.close()
        app.extensions["health"]._connection.close()
        for check in (app.extensions["health"]._broker, app.extensions["health"]._disk):
            check._executor.shutdown()


@pytest.fixture
def client(connection: Connection, make_client: MakeClient) -> FlaskClient:
    """A client of an app on an empty Redis."""
    return make_client()


def assert_problem(response: TestResponse, status: int, field: str | None = None) -> dict[str, Any]:
    """The response is a problem document of this status that names the field."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = response.get_json(force=True)
    assert (body["status"], body.get("field")) == (status, field)
    assert body["detail"]
    assert "Traceback" not in response.text
    return body


# ---- POST /batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "jobs", "seed"),
    [
        ({"jobs": 3, "seed": 42}, 3, 42),
        ({"jobs": 1}, 1, None),
        ({"jobs": 1000.0, "seed": 7.0}, 1000, 7),
        ({"jobs": 1e2, "seed": None}, 100, None),
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
        ({"jobs": 5, "\ud800": 1}, "\ud800"),
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
    assert_problem(client.post("/batches", data=data, content_type=content_type), status)
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


# ---- GET ------------------------------------------------------------------------------------------------------------


def test_the_list_of_batches(client: FlaskClient) -> None:
    """The newest first, in pages that lead to each other until the last."""
    assert client.get("/batches").get_json() == {"total": 0, "offset": 0, "limit": 100, "next": None, "batches": []}
    ids = [client.post("/batches", json={"jobs": jobs}).get_json()["id"] for jobs in range(1, 8)]
    found, address = list[int](), "/batches?limit=3"
    pages = 0
    while address:
        page = client.get(address).get_json()
        assert (page["total"], page["limit"]) == (7, 3)
        found += [batch["id"] for batch in page["batches"]]
        address, pages = page["next"], pages + 1
    assert (found, pages) == (ids[::-1], 3)
    assert client.get("/batches?limit=7").get_json()["next"] is None
    assert client.get("/batches?offset=7").get_json()["batches"] == []


@pytest.mark.parametrize("path", ["/batches", "/batches/1/jobs"])
@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=10001", "limit"), ("offset=-1", "offset"), ("offset=1e3", "offset"),
     ("offset=", "offset"), ("limit=1&limit=2", "limit"), ("offset=٣", "offset"), ("offset=" + "9" * 5000, "offset")],
)  # fmt: skip
def test_bad_pages(client: FlaskClient, path: str, query: str, field: str) -> None:
    """A page that cannot be is refused with the name of the parameter."""
    client.post("/batches", json={"jobs": 1})
    assert_problem(client.get(f"{path}?{query}"), 400, field)


def test_a_batch(client: FlaskClient, connection: Connection) -> None:
    """State, counters, progress and statistics, from the first moment to the end."""
    batch = client.post("/batches", json={"jobs": 4, "seed": 1}).get_json()["id"]
    new = client.get(f"/batches/{batch}").get_json()
    assert (new["id"], new["state"], new["jobs"], new["seed"], new["startup"]) == (batch, "PENDING", 4, 1, False)
    assert (new["counters"], new["done"], new["progress"], new["statistics"]) == ({"PENDING": 4}, 0, 0, {})
    assert (new["started"], new["ended"], new["finished"], new["crashes"]) == (None, None, None, 0)
    finish(connection, batch)
    done = client.get(f"/batches/{batch}").get_json()
    assert (done["state"], done["counters"], done["done"], done["progress"]) == ("COMPLETED", {"COMPLETED": 4}, 4, 1)
    moments = done["statistics"]["sum"]
    assert (moments["n"], moments["mean"], moments["min"], moments["max"]) == (4, 2.5, 1, 4)
    assert moments["standard_deviation"] == pytest.approx(1.2909944487358056)
    assert done["created"] <= done["started"] <= done["ended"]


def test_one_value_has_no_deviation(client: FlaskClient, connection: Connection) -> None:
    """The JSON of a batch with one job has null there, never NaN."""
    batch = client.post("/batches", json={"jobs": 1}).get_json()["id"]
    finish(connection, batch)
    response = client.get(f"/batches/{batch}")
    assert "NaN" not in response.text
    assert response.get_json()["statistics"]["sum"]["standard_deviation"] is None


def test_the_jobs_of_a_batch(client: FlaskClient, connection: Connection) -> None:
    """Pages of rows, each with its result and where its file is."""
    batch = client.post("/batches", json={"jobs": 5}).get_json()["id"]
    assert [row["state"] for row in client.get(f"/batches/{batch}/jobs").get_json()["jobs"]] == ["PENDING"] * 5
    finish(connection, batch)
    page = client.get(f"/batches/{batch}/jobs?offset=1&limit=2").get_json()
    assert (page["batch"], page["num_jobs"], page["next"]) == (batch, 5, f"/batches/{batch}/jobs?offset=3&limit=2")
    assert [(row["id"], row["sum"], row["csv"]) for row in page["jobs"]] == [
        (f"{batch}_{i}", i, f"/outputs/{batch}/job_{i}.csv") for i in (2, 3)
    ]
    assert client.get(page["next"]).get_json()["next"] is None
    assert client.get(f"/batches/{batch}/jobs?offset=5").get_json()["jobs"] == []


def test_a_cancelled_batchs_jobs(client: FlaskClient, connection: Connection) -> None:
    """Jobs that never ran are CANCELLED, in the row and in the state of the batch."""
    batch = client.post("/batches", json={"jobs": 3}).get_json()["id"]
    batches.cancel(connection, batch)
    assert client.get(f"/batches/{batch}").get_json()["state"] == "CANCELLED"
    assert [row["state"] for row in client.get(f"/batches/{batch}/jobs").get_json()["jobs"]] == ["CANCELLED"] * 3


@pytest.mark.parametrize("path", ["/batches/99", "/batches/0", "/batches/99/jobs", f"/batches/{10**30}"])
def test_a_batch_that_does_not_exist(client: FlaskClient, path: str) -> None:
    """404 that says which."""
    assert "There is no batch" in assert_problem(client.get(path), 404, "batch")["detail"]


@pytest.mark.parametrize("path", ["/batches/-1", "/batches/one", "/batches/1/tasks", "/batches/"])
def test_addresses_that_do_not_exist(client: FlaskClient, path: str) -> None:
    """404 or a redirect of Flask's, as a problem document."""
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/batches"), ("GET", "/batches"), ("GET", "/batches/1"), ("GET", "/batches/1/jobs")]
)
def test_the_token_is_needed(connection: Connection, make_client: MakeClient, method: str, path: str) -> None:
    """Without it, and with a wrong one, every route of the batches is closed; with it, open."""
    client = make_client(api_token=TOKEN)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN[:-1]}):
        assert_problem(client.open(path, method=method, json={"jobs": 1}, headers=headers), 401)
    assert dump(connection) == {}
    good = {"Authorization": f"Bearer {TOKEN}"}
    assert client.open(path, method=method, json={"jobs": 1}, headers=good).status_code in (200, 202, 404)


def test_a_page_of_another_site_cannot_submit(client: FlaskClient, connection: Connection) -> None:
    """A browser says where the request comes from."""
    response = client.post("/batches", json={"jobs": 5}, headers={"Sec-Fetch-Site": "cross-site"})
    assert_problem(response, 403)
    assert dump(connection) == {}


def test_without_redis(make_client: MakeClient, root: Path) -> None:
    """503 that says so, and no directory is left."""
    client = make_client(redis_url="unix:///tmp/there-is-no-such.sock")
    assert_problem(client.post("/batches", json={"jobs": 5}), 503)
    assert_problem(client.get("/batches"), 503)
    assert list(root.iterdir()) == []


# ---- the client and the command line --------------------------------------------------------------------------------


def cli(*arguments: object, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run ``batchsim`` as a user does, away from any .env."""
    return subprocess.run(
        support.python("-m", "batchsim", *(str(argument) for argument in arguments)),
        env=support.environment(**settings), cwd="/", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def assert_one_line(done: "subprocess.CompletedProcess[str]", code: int, said: str) -> None:
    """The command ended with this code, one line on standard error, and nothing on standard output."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("batchsim: ")
    assert said in done.stderr


def test_submit_show_watch_and_doctor_on_a_real_server(
    connection: Connection, redis_url: str, root: Path, api: Callable[..., str], worker: StartWorker
) -> None:
    """The whole way: an id, lines until the end, JSON, nothing wrong; then damage, which doctor finds."""
    url = api(API_TOKEN=TOKEN)
    worker(slots=2)
    given = {"BATCHSIM_URL": url, "API_TOKEN": TOKEN}
    done = cli("submit", "--jobs", 20, "--seed", 42, "--job-seconds", 0.02, "--watch", **given)
    assert done.returncode == 0, done
    first, *lines = done.stdout.splitlines()
    assert lines[-1] == f"batch {first}: COMPLETED, 20 of 20 jobs"
    assert len(lines) == len(set(lines))
    shown = json.loads(cli("show", first, **given).stdout)
    assert (shown["counters"], shown["statistics"]["sum"]["n"]) == ({"COMPLETED": 20}, 20)
    assert cli("watch", first, **given).returncode == 0

    client = Client(f"{url}/", TOKEN)
    accepted = client.submit(100_000, 1, job_seconds=0.5, idempotency_key="k")
    assert client.submit(100_000, 1, job_seconds=0.5, idempotency_key="k") == accepted
    with pytest.raises(InvalidInput, match="409"):
        client.submit(5, 1, idempotency_key="k")
    assert client.batch(accepted["id"])["jobs"] == 100_000
    batches.cancel(connection, accepted["id"])
    watched = cli("watch", accepted["id"], **given)
    assert (watched.returncode, watched.stdout.splitlines()[-1]) == (
        1, f"batch {accepted['id']}: CANCELLED, 100,000 of 100,000 jobs"
    )  # fmt: skip

    settings = {"REDIS_URL": redis_url, "OUTPUT_DIR": root}
    fine = cli("doctor", **settings)
    assert (fine.returncode, fine.stderr) == (0, ""), fine
    # The third is the start-up batch.
    assert fine.stdout.count("nothing wrong") == 3
    (root / first / "job_3.csv").unlink()
    found = cli("doctor", **settings)
    assert found.returncode == 1
    assert "job_3.csv cannot be read" in found.stdout

    for token in ("", "wrong"):
        assert_one_line(cli("show", first, **{**given, "API_TOKEN": token}), 2, "401")
    assert_one_line(cli("show", 999, **given), 2, "There is no batch 999")
    assert_one_line(cli("watch", 999, **given), 2, "There is no batch 999")
    assert_one_line(cli("submit", "--jobs", 0, **given), 2, "jobs is 0; it must be from 1 to")
    assert_one_line(cli("submit", "--jobs", 5, "--seed", -1, **given), 2, "seed is -1")


def test_doctor_without_a_ledger(redis_url: str, connection: Connection, root: Path) -> None:
    """Only the volume is left: a sample of the jobs run again finds the altered file."""
    spec = Submitter(connection, queue.make_app(redis_url), root).submit(2, 42)
    (root / str(spec.id) / "job_1.csv").write_bytes(support.expected_csv(42, 1))
    assert (cli("doctor", OUTPUT_DIR=root).returncode) == 0
    (root / str(spec.id) / "job_1.csv").write_bytes(support.expected_csv(42, 2))
    found = cli("doctor", OUTPUT_DIR=root)
    assert (found.returncode, "gives other bytes" in found.stdout) == (1, True)


def test_doctor_has_nothing_to_look_at(root: Path) -> None:
    """An empty and a missing directory, and a Redis that is away, are said in one line."""
    assert_one_line(cli("doctor", OUTPUT_DIR=root), 1, "There is no batch")
    assert_one_line(cli("doctor", OUTPUT_DIR=root, REDIS_URL="redis://127.0.0.1:1"), 1, "Redis")


def test_doctor_without_a_directory(root: Path) -> None:
    """A mistyped OUTPUT_DIR is one line, not a traceback."""
    assert_one_line(cli("doctor", OUTPUT_DIR=root / "missing"), 1, "missing")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://localhost",
        "",
        *(pytest.param(url) for url in ("http://127.0.0.1:port", "http://[::1")),
    ],
)
def test_a_bad_url_is_one_line(url: str) -> None:
    """An address that is none is the user's mistake."""
    assert_one_line(cli("show", 1, "--url", url), 2, "")


def test_a_server_that_is_not_there() -> None:
    """Nobody listens: one line with the address."""
    url = f"http://127.0.0.1:{free_port()}"
    assert_one_line(cli("show", 1, "--url", url), 1, f"{url} does not answer")
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        Client(url).batch(1)


@contextlib.contextmanager
def foreign_server(status: int, body: bytes) -> Iterator[str]:
    """A server that is none of ours; with status 0 it hangs up without a word."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not status:
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        # A daemon, and ended in any case: a failed test must not keep the whole run from ending.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>"),
        (502, b"oh"),
        *(
            pytest.param(*answer)
            for answer in ((200, b"<html>"), (200, b""), (200, b"[]"), (404, b"[1]"), (500, b"null"), (0, b""))
        ),
    ],
)
def test_a_server_that_is_not_ours(status: int, body: bytes) -> None:
    """A proxy's page, an empty answer, a connection that breaks: an error of ours, never another."""
    with foreign_server(status, body) as url, pytest.raises(BatchSimError):
        Client(url).batch(1)


def test_specs_are_the_same_everywhere(client: FlaskClient, connection: Connection, root: Path) -> None:
    """What the API says, what the ledger holds and what lies on the volume are one specification."""
    batch = client.post("/batches", json={"jobs": 5, "seed": 3}).get_json()["id"]
    spec = outputs.read_spec(root / str(batch))
    assert spec == batches.view(connection, batch).spec == BatchSpec(batch, 5, 3, created=spec.created if spec else "")
