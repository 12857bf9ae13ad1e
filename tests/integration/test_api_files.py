"""GET /outputs: the jobs' CSVs byte for byte, and no other file."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from common import outputs
from tests.integration.api_support import assert_guarded, assert_problem
from tests.support import expected_csv


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


@pytest.mark.parametrize(("name", "kind"), outputs.RESULT_TYPES.items())
def test_results_files(client: FlaskClient, root: Path, name: str, kind: str) -> None:
    """What a batch has at its end: 404 before, then its bytes, of the start-up batch and of another."""
    (root / "3").mkdir()
    for place, path in ((root, f"/outputs/{name}"), (root / "3", f"/outputs/3/{name}")):
        with client.get(path) as response:
            assert_problem(response, 404, "name")
        (place / name).write_bytes(b"index,seed\r\n")
        with client.get(path) as response:
            assert (response.status_code, response.mimetype, response.data) == (200, kind, b"index,seed\r\n")
            assert_guarded(response)


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
