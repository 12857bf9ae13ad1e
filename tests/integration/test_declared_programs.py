"""Programs over HTTP: only those that the operator has declared, with the parameters that they have."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.audit import audit, verify
from common.batch import BatchSpec
from common.errors import Conflict, InvalidInput
from common.explain import explain_batch
from common.ledger import Connection, batches
from common.options import read_options
from common.programs.files import stamped
from common.programs.program import Program
from common.settings import Settings
from common.simulations import registry
from common.submission import Submitter
from tests.conftest import StartWorker
from tests.integration.api_support import MakeClient, assert_problem
from tests.support import counted, wait_for

TABLE = """
[model]
command = ["./model", "{seed}", "{beta}", "{label}"]
outputs = ["energy"]
[model.parameters.beta]
type = "float"
default = 0.5
maximum = 10
[model.parameters.label]
type = "str"
default = "none"

[night]
script = "job.sh"

[broken]
command = ["./not-there"]
"""
MODEL = '#!/bin/sh\necho "{\\"energy\\": $2, \\"label\\": \\"$3\\", \\"beta\\": $PARAM_BETA, \\"seed\\": $1}"\n'
SCRIPT = "#!/bin/sh\n#SBATCH --array=0-8:2%3 -t 1\necho task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_MAX\n"


@pytest.fixture
def place(root: Path) -> Iterator[Path]:
    """A directory with declared programs, which this process looks at too."""
    found = root.parent / "mine"
    found.mkdir()
    (found / "simulations.toml").write_text(TABLE)
    (found / "model").write_text(MODEL)
    (found / "model").chmod(0o755)
    (found / "job.sh").write_text(SCRIPT)
    registry.use(found)
    yield found
    registry.use(None)


def finished(connection: Connection, batch: int) -> BatchSpec:
    """Wait for the results files."""
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    return batches.view(connection, batch).spec


FOREIGN: list[tuple[dict[str, Any], str]] = [
    ({"program": {"command": ["/bin/sh", "-c", "id"], "directory": "/"}}, "program"),
    ({"program": {}}, "program"),
    ({"command": ["/bin/sh"]}, "command"),
    ({"words": ["/bin/sh"]}, "words"),
    ({"shell": "id"}, "shell"),
    ({"script": "/etc/profile"}, "script"),
    ({"array": "1-5"}, "array"),
    ({"outputs": ["x"]}, "outputs"),
    ({"version": ""}, "version"),
    ({"simulation": "/bin/sh"}, "simulation"),
    ({"simulation": "./model"}, "simulation"),
    ({"simulation": "broken"}, "simulation"),
    ({"simulation": "model", "parameters": {"beta": 11}}, "beta"),
    ({"simulation": "model", "parameters": {"label": "--help"}}, "label"),
    ({"simulation": "model", "parameters": {"command": "id"}}, "command"),
    ({"simulation": "model", "sweep": {"axes": {"beta": [1, 11]}}, "jobs": None}, "beta"),
    ({"simulation": "model", "until": "count(beta) >= 5"}, "until"),
]


@pytest.mark.parametrize(("body", "field"), FOREIGN, ids=str)
def test_a_client_can_never_name_a_program(
    connection: Connection, make_client: MakeClient, place: Path, body: dict[str, Any], field: str
) -> None:
    """Not as a field, nor as a simulation or a parameter; and nothing comes of it."""
    client = make_client(simulations_dir=str(place))
    assert_problem(client.post("/batches", json={"jobs": 5, **body}), 400, field)
    assert batches.all_ids(connection) == []


def test_what_there_is(connection: Connection, make_client: MakeClient, place: Path) -> None:
    """With the parameters' schema; a broken table is reported by its own name."""
    found = make_client(simulations_dir=str(place)).get("/simulations").get_json()
    listed = {each["name"]: each for each in found["simulations"]}
    assert {"model", "night", "random_numbers"} <= set(listed)
    assert listed["model"]["parameters"]["properties"]["beta"] == {
        "default": 0.5, "maximum": 10, "title": "Beta", "type": "number",
    }  # fmt: skip
    ((origin, reason),) = found["broken"].items()
    assert origin.endswith("simulations.toml [broken]")
    assert "not-there" in reason


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_a_sweep_of_a_declared_program(
    connection: Connection, make_client: MakeClient, root: Path, place: Path, worker: StartWorker, mode: str
) -> None:
    """Each job gets its point, as the declared type, and what was not given."""
    worker(slots=2, SIMULATIONS_DIR=place)
    body = {"simulation": "model", "sweep": {"axes": {"beta": [1, 2.5]}, "replications": 3}, "output_mode": mode}
    client = make_client(simulations_dir=str(place))
    answer = client.post("/batches", json={"seed": 42, **body})
    assert answer.status_code == 202, answer.text
    spec = finished(connection, answer.get_json()["id"])
    assert counted(connection, spec.id) == {"COMPLETED": 6}
    assert (spec.parameters, spec.outputs) == ({"label": "none"}, ("energy",))
    with (root / str(spec.id) / "results.csv").open(newline="") as file:
        assert [(float(row["beta"]), float(row["energy"])) for row in csv.DictReader(file)] == [
            (beta, beta) for beta in (1.0, 2.5) for _ in range(3)
        ]
    with client.get(f"/outputs/{spec.id}/job_1.csv") as response:
        assert response.data.startswith(b"energy,label,beta,seed\r\n1.0,none,1.0,")
    assert audit(connection, root, spec.id) == []
    assert verify(root, spec, sample=6) == []
    shown = client.get(f"/batches/{spec.id}").get_json()
    assert shown["command"].startswith(f"batchsim run --seed 42 --simulations-dir {place} --simulation model")


def test_a_declared_script(
    connection: Connection, make_client: MakeClient, root: Path, place: Path, worker: StartWorker
) -> None:
    """Its #SBATCH lines say how many jobs, and with what; what the client asks for comes before them."""
    worker(SIMULATIONS_DIR=place)
    client = make_client(simulations_dir=str(place))
    answer = client.post("/batches", json={"simulation": "night", "time_limit_seconds": 9})
    assert answer.status_code == 202, answer.text
    spec = finished(connection, answer.get_json()["id"])
    assert (spec.jobs, spec.throttle, spec.time_limit_seconds) == (5, 3, 9.0)
    found = client.get(f"/batches/{spec.id}/estimates")
    assert (found.status_code, found.get_json()["outputs"]) == (200, {})
    logs = root / str(spec.id) / "logs"
    said = {path.name: path.read_text() for path in logs.iterdir()}
    assert said == {f"{spec.id}_{task}.out": f"task {task} of 8\n" for task in (0, 2, 4, 6, 8)}


def test_who_has_another_version_does_not_run_it(
    connection: Connection, make_client: MakeClient, place: Path, worker: StartWorker
) -> None:
    """Its directory may be another; its files may not."""
    other = place.parent / "other"
    other.mkdir()
    for name in ("simulations.toml", "model"):
        (other / name).write_bytes((place / name).read_bytes())
    (other / "model").write_text(MODEL + "# another\n")
    (other / "model").chmod(0o755)
    worker(SIMULATIONS_DIR=other)
    answer = make_client(simulations_dir=str(place)).post("/batches", json={"simulation": "model", "jobs": 3})
    batch = answer.get_json()["id"]
    wait_for(lambda: "(another version)" in " ".join(explain_batch(connection, batch).details), 10, "the sentence")
    assert counted(connection, batch) == {"PENDING": 3}
    (other / "model").write_text(MODEL)
    finished(connection, batch)
    assert counted(connection, batch) == {"COMPLETED": 3}


def test_a_program_of_the_command_line(connection: Connection, submitter: Submitter, place: Path) -> None:
    """Needs no declaration; the same key gives the same batch, and another program another answer."""
    program = stamped(Program(("./model", "{seed}", "1"), str(place), array="5-9", name="model"))
    options = read_options({"simulation": "model", "parameters": {"beta": 1}})
    given: dict[str, Any] = {"options": options, "outputs_of_program": ("energy",), "idempotency_key": "a"}
    spec = submitter.submit(None, 1, program=program, **given)
    assert (spec.jobs, spec.version, spec.outputs) == (5, "", ("energy",))
    assert Program.from_dict(spec.program) == program
    assert batches.view(connection, spec.id).spec == spec
    (place / "model").write_text(MODEL + "\n")
    assert submitter.submit(None, 1, program=stamped(program), **given) == spec
    other = Program(("./model", "2"), str(place), array="5-9", name="model")
    with pytest.raises(Conflict, match="another program"):
        submitter.submit(None, 1, program=other, **given)
    with pytest.raises(InvalidInput, match="jobs is 3, but the array has 5"):
        submitter.submit(3, program=program, options=options)


def test_a_program_is_run_again(
    connection: Connection, submitter: Submitter, root: Path, place: Path, worker: StartWorker
) -> None:
    """As start-up batch and by rerun: the same program as it is then, with a new seed; the first one's files move."""
    worker()
    settings = Settings(_env_file=None, num_jobs=3, output_dir=root)  # type: ignore[call-arg]
    program = stamped(Program(("sh", "./job.sh"), str(place), name="model"))
    first = submitter.start_up(settings, "test", options=read_options({"simulation": "model"}), program=program)
    assert finished(connection, first.id).jobs == 3
    (place / "job.sh").write_text(SCRIPT + "# another\n")
    second = submitter.rerun()
    assert (second.jobs, second.simulation, second.program["command"]) == (3, "model", ["sh", "./job.sh"])
    assert second.program["version"] != first.program["version"]
    finished(connection, second.id)
    assert counted(connection, second.id) == {"COMPLETED": 3}
    assert len(list((root / str(first.id) / "logs").iterdir())) == len(list((root / "logs").iterdir())) == 3


@pytest.mark.parametrize(("asked", "jobs"), [(None, 5), (7, 7), (5, 5)])
def test_a_number_that_is_asked_for_comes_before_the_scripts_array(
    submitter: Submitter, root: Path, place: Path, asked: int | None, jobs: int
) -> None:
    """As with submit; NUM_JOBS, of which everybody has one, does not."""
    settings = Settings(_env_file=None, num_jobs=3, output_dir=root)  # type: ignore[call-arg]
    options = read_options({"simulation": "night"})
    assert submitter.start_up(settings, "test", jobs=asked, options=options).jobs == jobs
