"""A folder of the user's own simulations, mounted into the containers: a function, and a declared program."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from container_harness import Compose, wait_for

pytestmark = [pytest.mark.containers, pytest.mark.xdist_group("containers"), pytest.mark.timeout(300, func_only=True)]

FUNCTION = """
from batchsim import simulation

@simulation(outputs={"x": float})
def uniform(rng, *, scale: float = 1.0):
    "A uniform number."
    return {"x": scale * float(rng.random())}
"""
SCRIPT = """#!/bin/sh
# In the job's own directory it may write, and nowhere else.
echo note > "$JOB_DIR/note" && ! touch ./elsewhere 2>/dev/null || exit 3
echo "not the result" >&2
printf '{"x": %d}\\n' $((JOB_SEED31 % 1000 * PARAM_SCALE))
"""
TABLE = """
[remainder]
script = "remainder.sh"
outputs = ["x"]

[remainder.parameters.scale]
type = "int"
default = 1
minimum = 1
"""


@pytest.fixture(scope="module")
def own(image: str, place: Path) -> Iterator[Compose]:
    """A project with two workers and the folder."""
    folder = place / "simulations"
    folder.mkdir()
    (folder / "uniform.py").write_text(FUNCTION, encoding="utf-8")
    (folder / "remainder.sh").write_text(SCRIPT, encoding="utf-8")
    (folder / "remainder.sh").chmod(0o755)
    (folder / "simulations.toml").write_text(TABLE, encoding="utf-8")
    with Compose(image, place, NUM_JOBS=5, SIMULATIONS=folder) as compose:
        compose.up(worker=2)
        compose.wait_healthy(workers=2)
        compose.wait_completed()
        yield compose


def ran(own: Compose, **body: object) -> Any:
    """Submit a batch and wait until its results files are there."""
    reply = own.post("/batches", **body)
    assert reply.status == 202, reply
    url = f"/batches/{reply.json['id']}"
    return wait_for(lambda: own.get(url).json, lambda seen: seen["finished"], 60, f"the end of {url}", own.logs)


@pytest.mark.parametrize("name", ["uniform", "remainder"])
def test_it_runs_swept_and_seeded(own: Compose, name: str) -> None:
    """Twice the same, and run again on another worker the same bytes."""
    sweep = {"axes": {"scale": [1, 2]}, "replications": 20}
    first, again = (ran(own, simulation=name, sweep=sweep, seed=42) for _ in range(2))
    assert (first["state"], first["counters"]["COMPLETED"], first["warnings"]) == ("COMPLETED", 40, [])
    places = [own.outputs / str(batch["id"]) for batch in (first, again)]
    assert len({(places[0] / f"job_{index}.csv").read_bytes() for index in range(1, 41)}) > 30
    for index in range(1, 41):
        assert (places[0] / f"job_{index}.csv").read_bytes() == (places[1] / f"job_{index}.csv").read_bytes()
    points = own.get(f"/batches/{first['id']}/points").json["points"]
    assert [point["outputs"]["x"]["count"] for point in points] == [20, 20]
    begun = own.post(f"/batches/{first['id']}/verify", sample=40)
    assert begun.status == 202, begun
    done = wait_for(
        lambda: own.get(begun.json["url"]).json, lambda seen: seen["state"] == "DONE", 60, "verify", own.logs
    )
    assert (done["checked"], done["differing"], done["same_worker"]) == (40, [], 0)


def test_what_a_program_says_is_kept(own: Compose) -> None:
    batch = ran(own, simulation="remainder", jobs=3)["id"]
    logs = own.outputs / str(batch) / "logs"
    assert {path.name: path.read_text() for path in logs.iterdir()} == {
        f"{batch}_{index}.err": "not the result\n" for index in (1, 2, 3)
    }


@pytest.mark.parametrize(
    "body",
    [
        {"jobs": 1, "program": {"command": ["/bin/sh"], "directory": "/"}},
        {"jobs": 1, "command": ["/bin/sh"]},
        {"jobs": 1, "simulation": "/bin/sh"},
        {"jobs": 1, "simulation": "remainder", "parameters": {"scale": "1; touch /tmp/x"}},
    ],
)
def test_a_client_cannot_name_a_program(own: Compose, body: dict[str, object]) -> None:
    assert own.post("/batches", **body).status == 400
