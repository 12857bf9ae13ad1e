"""GET /jobs: the start-up batch's jobs in every state and in pages."""

import json
import math

import numpy as np
import pytest
from flask.testing import FlaskClient

from common.batch import BatchSpec
from common.ledger import Connection, control, ranges
from tests.integration.api_support import MakeClient, assert_problem
from tests.support import finish, slice_of


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
    control.cancel(connection, spec.id)
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


def test_what_json_has_not(client: FlaskClient, connection: Connection, spec: BatchSpec) -> None:
    """Outputs that are no finite numbers are null; the page says what they are."""
    with np.errstate(invalid="ignore"):
        finish(connection, spec.id, {1: math.nan, 2: math.inf, 3: -math.inf})
    for url in ("/jobs", f"/batches/{spec.id}/jobs"):
        body = json.loads(client.get(url).text, parse_constant=lambda name: pytest.fail(name))
        assert [job["sum"] for job in body["jobs"]] == [None, None, None, 4.0, 5.0]
    page = client.get("/")
    assert page.status_code == 200
    assert page.text.count("<td>not finite</td>") >= 3


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
