"""Every route of the API through Flask's test client, on a real Redis: the good, the bad and the hostile."""

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common import queue
from common.batch import BatchSpec
from common.ledger import Connection, ranges, workers
from common.ledger.workers import WorkerInfo
from common.settings import Settings
from common.submission import Submitter
from services.api.app import create_app
from tests.support import expected_csv, finish, slice_of, wait_for

DEAD = "unix:///tmp/there-is-no-such.sock"
MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client(redis_url: str, root: Path) -> Iterator[MakeClient]:
    """Makes clients of apps with the given settings, and closes what the apps opened."""
    apps: list[Flask] = []

    def make(**settings: object) -> FlaskClient:
        given: dict[str, Any] = {
            "redis_url": redis_url,
            "output_dir": root,
            "num_jobs": 5,
            "min_free_mb": 0,
            **settings,
        }
        app = create_app(Settings(_env_file=None, **given))
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


@pytest.fixture
def spec(connection: Connection, redis_url: str, root: Path) -> BatchSpec:
    """A start-up batch of five jobs that has been submitted."""
    submitter = Submitter(connection, queue.make_app(redis_url), root)
    given = Settings(_env_file=None, num_jobs=5, seed=42, output_dir=root)  # type: ignore[call-arg]
    return submitter.start_up(given, "test")


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


# ---- health ---------------------------------------------------------------------------------------------------------


def test_health_ok(client: FlaskClient, connection: Connection) -> None:
    """With Redis and the directory: 200, the original's two members, and who works."""
    workers.heartbeat(connection, WorkerInfo("a", 3, 1, 1))
    response = client.get("/health")
    body = response.get_json()
    assert response.status_code == 200
    assert (body["status"], body["jobs_dir"], body["broker"], body["problems"]) == ("ok", True, True, [])
    assert (body["workers"], body["slots"], body["busy_slots"]) == (1, 3, 1)
    assert '"status":"ok"' in response.text.replace(": ", ":")
    assert '"jobs_dir":true' in response.text.replace(": ", ":")
    assert_guarded(response)


def test_health_live(make_client: MakeClient, tmp_path: Path) -> None:
    """The liveness check says nothing of Redis or the disk."""
    assert make_client(redis_url=DEAD, output_dir=tmp_path / "missing").get("/health/live").get_json() == {
        "status": "ok"
    }


def test_health_without_redis(make_client: MakeClient) -> None:
    """Redis down: 503 within a second that says so, and the directory is still looked at."""
    begin = time.monotonic()
    response = make_client(redis_url=DEAD).get("/health")
    body = response.get_json()
    assert time.monotonic() - begin < 1
    assert response.status_code == 503
    assert (body["status"], body["broker"], body["jobs_dir"], body["workers"]) == ("error", False, True, 0)
    assert "Redis does not answer" in body["problems"][0]


def test_health_while_redis_hangs(make_client: MakeClient, own_redis: Any) -> None:
    """A Redis that is stopped in mid-air: every /health answers within a second, and recovers with it."""
    client = make_client(redis_url=own_redis.url)
    assert client.get("/health").status_code == 200
    own_redis.process.send_signal(19)
    try:
        for _ in range(3):
            begin = time.monotonic()
            response = client.get("/health")
            assert time.monotonic() - begin < 1
            assert (response.status_code, response.get_json()["broker"]) == (503, False)
    finally:
        own_redis.process.send_signal(18)
    wait_for(lambda: client.get("/health").status_code == 200, 5, "health after Redis came back")


@pytest.mark.parametrize("place", ["missing", "file"])
def test_health_without_the_outputs_directory(
    make_client: MakeClient, connection: Connection, tmp_path: Path, place: str
) -> None:
    """No directory, or a file in its place: 503, jobs_dir false, and the reason."""
    (tmp_path / "file").write_text("")
    response = make_client(output_dir=tmp_path / place).get("/health")
    body = response.get_json()
    assert response.status_code == 503
    assert (body["broker"], body["jobs_dir"]) == (True, False)
    assert place in body["problems"][0]


def test_health_on_a_nearly_full_disk(make_client: MakeClient, connection: Connection) -> None:
    """Less free space than MIN_FREE_MB: 503 that names the setting, though the directory can be written."""
    response = make_client(min_free_mb=10**9).get("/health")
    body = response.get_json()
    assert response.status_code == 503
    assert (body["broker"], body["jobs_dir"]) == (True, True)
    assert "MIN_FREE_MB=1000000000" in body["problems"][0]


# ---- jobs -----------------------------------------------------------------------------------------------------------


def test_count_is_the_originals(client: FlaskClient, spec: BatchSpec) -> None:
    """``{"num_jobs":5}``, to the letter."""
    assert client.get("/jobs/count").text.strip().replace(" ", "") == '{"num_jobs":5}'


def test_before_the_first_batch(client: FlaskClient, make_client: MakeClient) -> None:
    """Nothing submitted yet: the number that will be, and an empty list."""
    assert make_client(num_jobs=9).get("/jobs/count").get_json() == {"num_jobs": 9}
    body = client.get("/jobs").get_json()
    assert (body["batch"], body["jobs"], body["next"]) == (None, [], None)


def test_jobs_in_all_states(client: FlaskClient, connection: Connection, spec: BatchSpec) -> None:
    """Each job has its state; a COMPLETED one its outputs and file, a running one is the head of a leased range."""
    lease, _ = ranges.claim(connection, (0, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
    assert lease is not None
    ranges.commit(connection, lease, slice_of(1, [50.0]), lease_seconds=60, slice_seconds=1)
    lease, _ = ranges.claim(connection, (0, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
    assert lease is not None
    ranges.commit(connection, lease, slice_of(2, [1.0], failed=[2]), lease_seconds=60, slice_seconds=1)
    ranges.claim(connection, (0, ""), worker="w", slot="w/0", lease_seconds=60, slice_seconds=1)
    body = client.get("/jobs").get_json()
    assert body["state"] == "RUNNING"
    assert [job["state"] for job in body["jobs"]] == ["COMPLETED", "FAILED", "RUNNING", "PENDING", "PENDING"]
    done = body["jobs"][0]
    assert (done["id"], done["sum"], done["mean"], done["csv"]) == (f"{spec.id}_1", 50.0, 5.0, "/outputs/job_1.csv")
    assert "csv" not in body["jobs"][1]
    assert "NaN" not in client.get("/jobs").text


def test_cancelled_jobs(client: FlaskClient, connection: Connection, spec: BatchSpec) -> None:
    """Jobs of a cancelled batch that never ran are CANCELLED."""
    from common.ledger import batches

    batches.cancel(connection, spec.id)
    body = client.get("/jobs").get_json()
    assert body["state"] == "CANCELLED"
    assert {job["state"] for job in body["jobs"]} == {"CANCELLED"}


def test_paging(client: FlaskClient, connection: Connection, spec: BatchSpec) -> None:
    """Following ``next`` from the first page visits every job once and then ends."""
    finish(connection, spec.id)
    url, seen, pages = "/jobs?limit=2", [], 0
    while url:
        body = client.get(url).get_json()
        seen += [job["index"] for job in body["jobs"]]
        url, pages = body["next"], pages + 1
    assert seen == [1, 2, 3, 4, 5]
    assert pages == 3
    assert client.get("/jobs?offset=5").get_json()["jobs"] == []
    assert client.get("/jobs?offset=1000000000&limit=10000").get_json()["next"] is None
    assert [job["index"] for job in client.get("/jobs?offset=3&limit=10000").get_json()["jobs"]] == [4, 5]


BAD_NUMBERS = ["-1", "abc", "", "1.5", "1e3", "%20", "+1", "0x1", "%D9%A1", "99999999999999999999", "9" * 5000]


@pytest.mark.parametrize("value", BAD_NUMBERS)
@pytest.mark.parametrize("name", ["offset", "limit"])
def test_bad_page(client: FlaskClient, name: str, value: str) -> None:
    """A wrong offset or limit is 400 that names the parameter."""
    assert_problem(client.get(f"/jobs?{name}={value}"), 400, name)


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=1&limit=2"])
def test_limit_out_of_range(client: FlaskClient, query: str) -> None:
    """A limit beyond its range, or given twice, is 400."""
    assert_problem(client.get(f"/jobs?{query}"), 400, "limit")


# ---- rerun ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_other_sites_change_nothing(client: FlaskClient, connection: Connection, spec: BatchSpec, site: str) -> None:
    """A request that a page of another site made is 403, and nothing was started."""
    finish(connection, spec.id)
    assert_problem(client.post("/rerun", headers={"Sec-Fetch-Site": site}), 403)
    assert client.get("/jobs", headers={"Sec-Fetch-Site": site}).get_json()["batch"] == spec.id


# ---- files ----------------------------------------------------------------------------------------------------------


def test_files(client: FlaskClient, root: Path) -> None:
    """A CSV comes byte for byte, of the start-up batch and of an older one, with HEAD too."""
    data = expected_csv(42, 1)
    (root / "job_1.csv").write_bytes(data)
    (root / "3").mkdir()
    (root / "3" / "job_2.csv").write_bytes(b"other")
    response = client.get("/outputs/job_1.csv")
    assert (response.status_code, response.data, response.mimetype) == (200, data, "text/csv")
    assert_guarded(response)
    response.close()
    with client.get("/outputs/3/job_2.csv") as response:
        assert response.data == b"other"
    with client.head("/outputs/job_1.csv") as response:
        assert (response.status_code, response.data) == (200, b"")


TRAVERSALS = [
    "/outputs/../secret.csv", "/outputs/..%2fsecret.csv", "/outputs/%2e%2e/secret.csv", "/outputs/%2e%2e%2fjob_9.csv",
    "/outputs/..%5cjob_9.csv", "/outputs//etc/passwd", "/outputs/%2fetc%2fpasswd", "/outputs/job_1.csv%00",
    "/outputs/job_1.csv/", "/outputs/job_1.csv%0a", "/outputs/batch.json", "/outputs/.submit.lock", "/outputs/",
    "/outputs/3/../job_1.csv", "/outputs/3/..%2fjob_1.csv", "/outputs/3/../../job_9.csv", "/outputs/-1/job_1.csv",
    "/outputs/job_01.csv", "/outputs/job_%D9%A1.csv", "/outputs/job_2.csv", "/outputs/3/job_2.csv", "/outputs/3/",
    "/outputs/3/batch.json", "/outputs/999999/job_1.csv", "/outputs/" + "9" * 300 + "/job_1.csv",
    "/outputs/" + "9" * 5000 + "/job_1.csv", "/static/../app.py", "/static/..%2fapp.py",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_other_file_is_served(client: FlaskClient, root: Path, path: str) -> None:
    """Whatever the path says, only job CSVs below the outputs directory are served: 404 else."""
    (root.parent / "secret.csv").write_text("classified")
    (root.parent / "job_9.csv").write_text("classified")
    (root / "job_2.csv").symlink_to(root.parent / "secret.csv")
    (root / "job_1.csv").write_text("fine")
    (root / "batch.json").write_text("{}")
    (root / "3").mkdir()
    (root / "3" / "batch.json").write_text("{}")
    with client.get(path) as response:
        assert "classified" not in response.text
        if response.status_code == 308:
            path = response.headers["Location"]
            assert path.startswith("/outputs/") or "localhost" in path
        else:
            assert_problem(response, 404, "name" if response.get_json(force=True).get("field") else None)


# ---- errors, token, page --------------------------------------------------------------------------------------------


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


def basic(password: str) -> str:
    """A browser's header for user ``any``."""
    return "Basic " + base64.b64encode(f"any:{password}".encode()).decode()


GUARDED = [
    ("GET", "/"),
    ("GET", "/jobs"),
    ("GET", "/jobs/count"),
    ("POST", "/rerun"),
    ("GET", "/outputs/job_1.csv"),
    ("GET", "/x"),
]
WRONG = [
    None,
    "",
    "Bearer",
    "Bearer wrong",
    "Bearer s3cre",
    "Bearer s3cret2",
    "s3cret",
    "Basic !!!",
    basic("wrong"),
    "Digest s3cret x",
]


@pytest.mark.parametrize("header", WRONG)
@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_token_is_asked_for(make_client: MakeClient, method: str, path: str, header: str | None) -> None:
    """Without the right token every route but health is 401, before anything else is looked at."""
    headers = {"Authorization": header} if header is not None else {}
    response = make_client(redis_url=DEAD, api_token="s3cret").open(path, method=method, headers=headers)
    body = assert_problem(response, 401)
    assert "s3cret" not in str(body)
    assert "Bearer" in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer  s3cret ", basic("s3cret")])
def test_token_lets_in(make_client: MakeClient, connection: Connection, header: str) -> None:
    """The right token, as a bearer or as a browser's password, lets in; health is open to all."""
    client = make_client(api_token="s3cret")
    assert client.get("/jobs/count", headers={"Authorization": header}).status_code == 200
    for path in ("/health", "/health/live"):
        assert client.get(path).status_code == 200


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


def test_large_body_is_refused(client: FlaskClient) -> None:
    """A body beyond a megabyte does no harm."""
    assert client.post("/rerun", data=b"x" * 2_000_000).status_code in (409, 413)
