"""Who may use the API: the token, and pages of other sites."""

import base64

import pytest
from flask.testing import FlaskClient

from common.batch import BatchSpec
from common.ledger import Connection
from tests.integration.api_support import DEAD, TOKEN, MakeClient, assert_problem
from tests.support import dump, finish


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


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_other_sites_change_nothing(client: FlaskClient, connection: Connection, spec: BatchSpec, site: str) -> None:
    """A request that a page of another site made is 403, and nothing was started."""
    finish(connection, spec.id)
    assert_problem(client.post("/rerun", headers={"Sec-Fetch-Site": site}), 403)
    assert client.get("/jobs", headers={"Sec-Fetch-Site": site}).get_json()["batch"] == spec.id


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
