"""The command line's verbs against a real server and worker, as a user types them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.ledger import Connection, batches
from common.options import Options
from tests.conftest import StartWorker
from tests.integration.api_support import TOKEN
from tests.integration.test_client import assert_one_line, cli
from tests.support import differences, expected_csv, expected_files, files, wait_for

SEED = 7
Batchsim = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def batchsim(connection: Connection, root: Path, api: Callable[..., str]) -> Batchsim:
    """Runs ``batchsim`` against a real server that asks for a token; the start-up batch is batch 1, of 5 jobs."""
    url = api(API_TOKEN=TOKEN, NUM_JOBS=5, SEED=SEED)

    def run(*arguments: object, **settings: object) -> "subprocess.CompletedProcess[str]":
        return cli(*arguments, **{"BATCHSIM_URL": url, "API_TOKEN": TOKEN, "OUTPUT_DIR": root, **settings})

    wait_for(lambda: batches.startup_id(connection), 60, "the start-up batch")
    return run


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """Standard output of a command that succeeded and complained of nothing."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.strip()


def show(batchsim: Batchsim, batch: object) -> dict[str, Any]:
    """The batch as JSON."""
    found: dict[str, Any] = json.loads(said(batchsim("show", batch)))
    return found


EVERY_OPTION = {
    "--until": ("standard_error(mean) < 0.001", "standard_error(mean) < 0.001"),
    "--simulation": ("faulty", "faulty"),
    "--param": ("raises=0.0", {"raises": 0.0}),
    "--time-limit-seconds": ("20", 20.0),
    "--memory-limit-mb": ("512", 512),
    "--retries": ("2", 2),
    "--retry-delay-seconds": ("0.5", 0.5),
    "--crash-limit": ("3", 3),
    "--max-fails": ("40%", 2),
    "--throttle": ("1", 1),
    "--priority": ("-5", -5),
    "--partition": ("default", "default"),
    "--dependency": ("afterok:1", [["afterok", 1]]),
    "--output-mode": ("packed", "packed"),
}
FLAGS = ("--hold", "--kill-on-invalid-dependency")


def test_a_batch_with_every_option(batchsim: Batchsim, worker: StartWorker, tmp_path: Path) -> None:
    """Submitted held with all there is, explained, changed, released, watched, exported: its bytes are as ever."""
    given = [word for option, (value, _) in EVERY_OPTION.items() for word in (option, value)]
    batch = said(batchsim("submit", "--jobs", 5, "--seed", SEED, "--idempotency-key", "k", *given, *FLAGS))
    again = said(batchsim("submit", "--jobs", 5, "--seed", SEED, "--idempotency-key", "k", *given, *FLAGS))
    assert again == batch == "2"
    assert_one_line(batchsim("submit", "--jobs", 5, "--idempotency-key", "k"), 2, "Idempotency-Key belongs to batch 2")
    options = show(batchsim, batch)["options"]
    wanted = {option[2:].replace("-", "_"): value for option, (_, value) in EVERY_OPTION.items()}
    wanted["parameters"] = wanted.pop("param")
    assert options == wanted | {"hold": True, "kill_on_invalid_dependency": True, "sweep": {}}
    assert set(options) == set(Options.model_fields)

    assert said(batchsim("explain", batch)).splitlines() == [
        "2 is HELD (JobHeldUser)",
        "  It is held: none of its jobs is started until it is released; 0 jobs still at work.",
        "  What to do: `batchsim release 2`",
    ]
    assert said(batchsim("update", batch, "--throttle", 3, "--priority", 9, "--max-fails", "60%")) == (
        "batch 2: HELD, throttle 3, priority 9, max_fails 3"
    )
    assert said(batchsim("release", batch)) == "batch 2: PENDING"
    assert said(batchsim("hold", batch)) == "batch 2: HELD"
    assert said(batchsim("release", batch)) == "batch 2: PENDING"
    assert "2 is PENDING (Dependency)\n  afterok:1: batch 1 is PENDING, 0 of its 5 jobs ended." in said(
        batchsim("explain", batch)
    )

    worker(slots=2)
    assert "batch 2: COMPLETED, 5 of 5 jobs\n  sum: mean " in said(batchsim("watch", batch))
    assert said(batchsim("export", "--batch", batch, tmp_path / "out")) == f"5 files in {tmp_path / 'out'}/"
    assert differences(files(tmp_path / "out"), expected_files(SEED, 5)) == []
    # The start-up batch has a number, too.
    for number, arguments in enumerate(([], ["--batch", 1])):
        assert said(batchsim("export", *arguments, tmp_path / f"own-{number}")).startswith("5 files")
        assert differences(files(tmp_path / f"own-{number}"), expected_files(SEED, 5)) == []
    assert_one_line(batchsim("export", "--batch", batch, tmp_path / "out"), 2, "is not empty")
    assert_one_line(batchsim("export", "--batch", 99, tmp_path / "new"), 1, "There is no batch")
    assert_one_line(batchsim("hold", batch), 2, "409: Batch 2 has ended")


def test_cancel_requeue_and_explain(batchsim: Batchsim, worker: StartWorker, root: Path) -> None:
    """Parts are cancelled as they are written, run after all, and watch's exit code tells one end from the other."""
    batch = said(batchsim("submit", "--jobs", 20, "--seed", SEED, "--hold"))
    assert said(batchsim("cancel", f"{batch}_[1-3,10-20:5]")) == f"batch {batch}: 6 jobs cancelled; it is HELD"
    assert said(batchsim("cancel", f"{batch}_7")) == f"batch {batch}: 1 job cancelled; it is HELD"
    assert said(batchsim("cancel", f"{batch}_7")) == f"batch {batch}: 0 jobs cancelled; it is HELD"
    assert said(batchsim("cancel", f"{batch}_[8-9]", "--state", "running")).startswith(f"batch {batch}: 0 jobs")
    assert said(batchsim("cancel", f"{batch}_9", "--state", "PENDING")).startswith(f"batch {batch}: 1 job ")
    said(batchsim("release", batch))
    worker(slots=1)
    watched = batchsim("watch", batch)
    assert watched.returncode == 1
    assert f"batch {batch}: CANCELLED, 20 of 20 jobs\n  sum: mean " in watched.stdout
    gone = {1, 2, 3, 7, 9, 10, 15, 20}
    left = {f"job_{index}.csv": expected_csv(SEED, index) for index in range(1, 21) if index not in gone}
    assert differences(files(root / batch), left) == []
    explained = said(batchsim("explain", batch))
    assert explained.startswith(f"{batch} is CANCELLED\n  12 jobs COMPLETED: {batch}_4")
    assert f"8 jobs CANCELLED: {batch}_1, {batch}_2, {batch}_3, {batch}_7, {batch}_9 …" in explained
    assert f"{batch}_7 is CANCELLED" in said(batchsim("explain", f"{batch}_7"))

    nothing = batchsim("requeue", batch)
    assert nothing.stdout == f"batch {batch}: 0 jobs to run again; it is CANCELLED\n"
    advice = f"To run the 8 jobs that are CANCELLED: batchsim requeue {batch} --state CANCELLED"
    assert nothing.stderr == f"No job of it failed. {advice}\n"
    assert said(batchsim("requeue", batch, "--state", "CANCELLED")).startswith(f"batch {batch}: 8 jobs to run again")
    assert f"batch {batch}: COMPLETED, 20 of 20 jobs\n" in said(batchsim("watch", batch))
    assert differences(files(root / batch), expected_files(SEED, 20)) == []
    assert "requeued, was CANCELLED" in said(batchsim("explain", f"{batch}_7"))
    assert said(batchsim("explain", f"{batch}_[4]")).startswith(f"{batch}_4 is COMPLETED")

    (root / batch / "job_5.csv").unlink()
    assert said(batchsim("requeue", batch, "--missing")).startswith(f"batch {batch}: 1 job to run again")
    assert f"batch {batch}: COMPLETED, 20 of 20 jobs\n" in said(batchsim("watch", batch))
    assert differences(files(root / batch), expected_files(SEED, 20)) == []


def test_watch_ends_with_a_sweeps_points(batchsim: Batchsim, worker: StartWorker) -> None:
    """Each with its parameters and its own estimate; of many the first ones, and how to see the rest."""
    worker(slots=2)
    given = ("--simulation", "european_option", "--paths", 100, "--replications", 3, "--watch")
    lines = said(batchsim("submit", *given, "--sigma", "0.1,0.2", "--strike", "90,100")).splitlines()[-4:]
    points = [row.split(",") for row in said(batchsim("estimate", 2, "--points")).splitlines()[1:]]
    assert len(points) == 4
    for line, (sigma, strike, *_) in zip(lines, points, strict=True):
        assert line.startswith(f"  sigma {sigma}, strike {strike}: price ")
        assert " ± " in line
        assert ", n 3" in line
    last = said(batchsim("submit", *given, "--sigma", "0.1:0.9:0.01")).splitlines()[-2:]
    assert last[0].startswith("  sigma 0.29: price ")
    assert last[1] == "  … 81 points in all: batchsim estimate 3 --points"


def test_watch_says_that_the_stop_rule_was_met(batchsim: Batchsim, worker: StartWorker) -> None:
    """How many jobs it spared, in the words of ``run``; it has succeeded, so the exit code is 0."""
    worker(slots=1)
    rule = "standard_error(sum) < 1000"
    given = ("--jobs", 100_000, "--output-mode", "packed", "--job-seconds", 0.001)
    *_, state, _, _, last = said(batchsim("submit", *given, "--until", rule, "--watch")).splitlines()
    needless = show(batchsim, 2)["needless"]
    assert needless > 1
    assert state == "batch 2: ABORTED by its stop rule, 100,000 of 100,000 jobs"
    assert last == f"  stop rule {rule}: met, {needless:,} jobs were not needed"
    last = said(batchsim("submit", "--jobs", 5, "--until", "standard_error(sum) < 1e-9", "--watch")).splitlines()[-1]
    assert last == "  stop rule standard_error(sum) < 1e-9: all jobs were run"


def test_failures_on_the_command_line(batchsim: Batchsim, worker: StartWorker) -> None:
    """Exit code 1 of --watch, why, and a cancel of what hangs."""
    worker(slots=1)
    failed = batchsim("submit", "--jobs", 3, "--seed", 1, "--simulation", "faulty", "--param", "raises=1", "--watch")
    assert failed.returncode == 1, failed
    batch, *lines = failed.stdout.splitlines()
    assert lines[-1] == f"batch {batch}: FAILED, 3 of 3 jobs"
    explained = said(batchsim("explain", f"{batch}_2"))
    assert explained.startswith(f"{batch}_2 is FAILED (NonZeroExitCode)\n  Attempt 1 began at ")
    assert "Misbehaved: this job was chosen to fail" in explained
    assert explained.endswith(f"`batchsim requeue {batch}`")
    assert all(line.startswith("  ") for line in explained.splitlines()[1:])

    hanging = said(batchsim("submit", "--jobs", 2, "--simulation", "faulty", "--param", "hangs=1"))
    wait_for(lambda: show(batchsim, hanging)["counters"].get("RUNNING"), 60, "a hanging job")
    assert "_1 is RUNNING\n  Slot " in said(batchsim("explain", f"{hanging}_1"))
    assert said(batchsim("cancel", hanging)) == f"batch {hanging}: 2 jobs cancelled; it is CANCELLED"
    # The slot is free again, though the job would never have ended.
    assert batchsim("submit", "--jobs", 3, "--watch").returncode == 0


def test_wrong_input(batchsim: Batchsim) -> None:
    """One clear line and exit code 2, whoever sees the mistake; nothing has changed."""
    before = show(batchsim, 1)
    assert_one_line(batchsim("submit", "--jobs", 5, "--retries", -1), 2, "400: retries is -1")
    assert_one_line(batchsim("cancel", "7x"), 2, "'7x' is not a batch or job id")
    assert_one_line(batchsim("hold", 1, API_TOKEN="wrong"), 2, "401")
    assert_one_line(batchsim("requeue", 1, BATCHSIM_URL="http://127.0.0.1:1"), 1, "does not answer")
    done = batchsim("hold", "1_2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'1_2' names jobs; this is done to a whole batch, such as 1" in done.stderr
    assert show(batchsim, 1) == before
    assert_one_line(batchsim("show", 2), 2, "404")


def test_export_that_cannot_be_written(batchsim: Batchsim, worker: StartWorker, tmp_path: Path) -> None:
    """One line, no traceback."""
    worker(slots=1)
    said(batchsim("watch", 1))
    (tmp_path / "file").write_text("x")
    assert_one_line(batchsim("export", tmp_path / "file"), 2, "is not a directory")
    assert_one_line(batchsim("export", "/proc/nowhere"), 1, "/proc/nowhere")
