"""GET /batches: the list, one batch, its jobs, and the addresses that lead nowhere."""

import pytest
from flask.testing import FlaskClient

from common.ledger import Connection, control
from tests.integration.api_support import assert_problem
from tests.support import finish


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
    control.cancel(connection, batch)
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
