"""GET /health: what it says of Redis, the directory and the disk, and how soon."""

import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from common.ledger import Connection, workers
from common.ledger.workers import WorkerInfo
from tests.integration.api_support import DEAD, MakeClient, assert_guarded
from tests.support import wait_for


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
    client, took = make_client(redis_url=DEAD), []
    for _ in range(5):
        begin = time.monotonic()
        response = client.get("/health")
        took.append(time.monotonic() - begin)
    body = response.get_json()
    assert sorted(took)[2] < 1, took
    assert response.status_code == 503
    assert (body["status"], body["broker"], body["jobs_dir"], body["workers"]) == ("error", False, True, 0)
    assert "Redis does not answer" in body["problems"][0]


def test_health_while_redis_hangs(make_client: MakeClient, own_redis: Any) -> None:
    """A Redis that is stopped in mid-air: every /health answers within a second, and recovers with it."""
    client = make_client(redis_url=own_redis.url)
    wait_for(lambda: client.get("/health").status_code == 200, 60, "health")
    took = []
    own_redis.process.send_signal(19)
    try:
        for _ in range(5):
            begin = time.monotonic()
            response = client.get("/health")
            took.append(time.monotonic() - begin)
            assert (response.status_code, response.get_json()["broker"]) == (503, False)
    finally:
        own_redis.process.send_signal(18)
    # A stall of this machine is none of ours: it makes one of them late, not most.
    assert sorted(took)[2] < 1, took
    wait_for(lambda: client.get("/health").status_code == 200, 60, "health after Redis came back")


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
