"""Who writes a batch's results files, where, and when: one of many, while the batch stays ended, and nobody else."""

import json
import threading
from pathlib import Path

import pytest

from common import queue
from common.audit import audit
from common.batch import BatchSpec, JobState
from common.control import Controller
from common.errors import BatchSimError
from common.ledger import Connection, batches, control, finishing, keys
from common.settings import Settings
from common.submission import Submitter
from services.worker import finish as finish_module
from services.worker.finish import finish
from tests.integration.finish_support import JOBS, mixed_batch, rows, run
from tests.integration.recovery_support import SEED, assert_whole, run_jobs, write_job
from tests.support import dump, expected_files, files
from tests.support import finish as complete


@pytest.fixture
def submitter(connection: Connection, redis_url: str, root: Path) -> Submitter:
    """Submits to the test's Redis and directory."""
    return Submitter(connection, queue.make_app(redis_url), root)


@pytest.fixture
def mixed(submitter: Submitter, connection: Connection) -> BatchSpec:
    """An ended batch with completed, failed and cancelled jobs."""
    return mixed_batch(submitter, connection)


def test_only_one_of_many_callers_writes(connection: Connection, redis_url: str, root: Path, mixed: BatchSpec) -> None:
    """Of eight at once one writes; afterwards nobody does, and the files stay the same."""
    answers: list[bool] = []
    barrier = threading.Barrier(8)

    def one(name: str) -> None:
        own = Connection(redis_url)
        barrier.wait()
        answers.append(finish(own, root, mixed.id, name))
        own.close()

    threads = [threading.Thread(target=one, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    before = (root / str(mixed.id) / "summary.json").stat()
    assert not finish(connection, root, mixed.id, "w")
    assert (root / str(mixed.id) / "summary.json").stat() == before


def test_a_batch_that_runs_is_not_finished(submitter: Submitter, connection: Connection, root: Path) -> None:
    """Nothing is written before the last job has ended."""
    spec = submitter.submit(5)
    run(connection, spec.id, most=4)
    assert not finish(connection, root, spec.id, "w")
    assert not (root / str(spec.id) / "results.csv").exists()


def test_a_dead_writer_is_replaced(connection: Connection, root: Path, mixed: BatchSpec) -> None:
    """While one writes no other does; when its claim has run out another starts over, whatever lies there."""
    assert finishing.claim(connection, mixed.id, "dead", seconds=60)
    (root / str(mixed.id) / f".staging-{mixed.id}" / ".results.csv.tmp").write_text("half")
    (root / str(mixed.id) / "results.csv").write_text("half")
    assert not finish(connection, root, mixed.id, "w")
    connection.command("DEL", keys.finisher(mixed.id))
    assert finish(connection, root, mixed.id, "w")
    assert len(rows(root / str(mixed.id))) == JOBS


def test_a_start_up_batch_that_was_archived_meanwhile(submitter: Submitter, connection: Connection, root: Path) -> None:
    """Its results go to where its files are now, and nothing beside the next start-up batch's files."""
    given = Settings(_env_file=None, num_jobs=5, seed=1, output_dir=root)  # type: ignore[call-arg]
    first = submitter.start_up(given, "c1")
    complete(connection, first.id)
    second = submitter.start_up(given.model_copy(update={"num_jobs": 6}), "c2")
    before = {path.name for path in root.iterdir()}
    assert finish(connection, root, first.id, "w")
    assert {path.name for path in root.iterdir()} == before
    assert {path.name for path in (root / str(first.id)).iterdir()} == {
        "batch.json", "results.csv", "results.parquet", "summary.json"
    }  # fmt: skip
    assert json.loads((root / str(first.id) / "summary.json").read_text())["batch"] == first.id
    assert not batches.view(connection, second.id).ended


def test_the_start_up_batchs_results_lie_in_outputs_itself(
    submitter: Submitter, connection: Connection, root: Path
) -> None:
    """Beside its CSVs, as the original had them; the next start-up batch takes them along when it archives."""
    given = Settings(_env_file=None, num_jobs=5, seed=1, output_dir=root)  # type: ignore[call-arg]
    first = submitter.start_up(given, "c1")
    complete(connection, first.id)
    assert finish(connection, root, first.id, "w")
    assert len(rows(root)) == 5
    submitter.start_up(given, "c2")
    assert not (root / "summary.json").exists()
    assert len(rows(root / str(first.id))) == 5


def test_a_directory_that_is_gone_leaves_the_batch_to_be_finished(
    connection: Connection, root: Path, mixed: BatchSpec
) -> None:
    """The failure is an OSError, the batch is not called finished, and works once the directory is back."""
    place = root / str(mixed.id)
    place.rename(root / "away")
    with pytest.raises(OSError, match="No such file"):
        finish(connection, root, mixed.id, "w")
    assert finishing.awaited(connection) == [mixed.id]
    assert not batches.view(connection, mixed.id).finished
    (root / "away").rename(place)
    assert finish(connection, root, mixed.id, "w")
    assert len(rows(place)) == JOBS


def test_an_unknown_batch(connection: Connection, root: Path) -> None:
    """A message for a batch that Redis has forgotten is an error of ours, and makes no file."""
    with pytest.raises(BatchSimError, match="no batch 7"):
        finish(connection, root, 7, "w")
    assert list(root.iterdir()) == []


def strayed(submitter: Submitter, connection: Connection, root: Path) -> BatchSpec:
    """An ended batch whose job 2 was written, and cancelled before it could be committed."""
    spec = submitter.submit(4, SEED)
    write_job(root, spec, 2)
    control.cancel(connection, spec.id, 2, 2)
    run_jobs(connection, root, spec.id)
    return spec


def test_strays_are_removed(submitter: Submitter, connection: Connection, root: Path) -> None:
    """A cancelled job has no CSV, and the others' are whole."""
    spec = strayed(submitter, connection, root)
    assert finish(connection, root, spec.id, "w")
    assert sorted(files(root / str(spec.id))) == ["job_1.csv", "job_3.csv", "job_4.csv"]
    assert audit(connection, root, spec.id) == []


STEPS = ["_outputs", "_remove_strays", "_move"]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_finisher_that_slept_while_the_batch_ran_again(
    submitter: Submitter,
    connection: Connection,
    redis_url: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    ended: bool,
) -> None:
    """Wherever it slept: what it had read is not the batch any more, so it changes neither its files nor its end."""
    spec = strayed(submitter, connection, root)
    place, real = root / str(spec.id), getattr(finish_module, step)

    def meanwhile() -> None:
        connection.command("DEL", keys.finisher(spec.id))
        assert finish(connection, root, spec.id, "v")
        assert Controller(connection, queue.make_app(redis_url), root).requeue(spec.id, [JobState.CANCELLED]) == 1
        if ended:
            assert run_jobs(connection, root, spec.id) == [2]
        else:
            write_job(root, spec, 2)

    def slept(*given: object) -> object:
        monkeypatch.setattr(finish_module, step, real)
        meanwhile()
        return real(*given)

    monkeypatch.setattr(finish_module, step, slept)
    assert not finish(connection, root, spec.id, "w")
    assert files(place) == expected_files(SEED, 4)
    assert not (place / "summary.json").exists()
    assert not batches.view(connection, spec.id).finished
    assert not finishing.is_claimed(connection, spec.id)
    run_jobs(connection, root, spec.id)
    assert_whole(connection, root, spec)


def test_an_end_that_is_over_is_not_finished(submitter: Submitter, connection: Connection) -> None:
    """The ledger takes the word only of who has read the batch as it ended last, and leaves another's claim to him."""
    spec = submitter.submit(2)
    run(connection, spec.id, most=2)
    first = batches.view(connection, spec.id).ended
    assert finishing.finished(connection, spec.id, first)
    assert control.requeue(connection, spec.id, [(1, 2, JobState.COMPLETED, 1)], {})
    assert not finishing.finished(connection, spec.id, first), "it runs"
    run(connection, spec.id, most=2)
    assert finishing.claim(connection, spec.id, "another", seconds=60)
    before = dump(connection)
    assert not finishing.finished(connection, spec.id, first)
    assert not finishing.finished(connection, spec.id, None)
    assert dump(connection) == before
    assert finishing.finished(connection, spec.id, batches.view(connection, spec.id).ended)
