"""The start-up batch: once for each life of a container, taken over or replaced, older files kept."""

from pathlib import Path

import pytest

from common import outputs, queue
from common.batch import BatchSpec
from common.errors import BrokerUnavailable, Conflict, InvalidInput, StorageUnavailable
from common.job_writer import JobWriter
from common.ledger import Connection, batches, keys, ranges
from common.options import read_options
from common.outputs import exclusive
from common.settings import Settings
from common.submission import Submitter
from tests.support import counted, dump, finish, slice_of


@pytest.fixture
def submitter(connection: Connection, redis_url: str, root: Path) -> Submitter:
    """Submits to the test's Redis and directory."""
    return Submitter(connection, queue.make_app(redis_url), root)


def configured(root: Path, jobs: int = 5, seed: int | None = None) -> Settings:
    """Settings of a start-up batch."""
    return Settings(_env_file=None, num_jobs=jobs, seed=seed, output_dir=root)  # type: ignore[call-arg]


def test_submit_publishes_a_ticket_for_each_range(submitter: Submitter, connection: Connection, root: Path) -> None:
    """An accepted batch has its batch.json, its entry in the ledger, and as many messages as ranges."""
    spec = submitter.submit(5, 42)
    assert (spec.jobs, spec.seed, spec.startup) == (5, 42, False)
    assert outputs.read_spec(root / str(spec.id)) == spec
    assert ranges.owed(connection, queue.QUEUE) == (5, 5)
    assert batches.view(connection, spec.id).spec == spec


@pytest.mark.parametrize(("jobs", "seed"), [(0, None), (10**9, None), (5, -1), (5, 2**63)])
def test_bad_submit_leaves_nothing(
    submitter: Submitter, connection: Connection, root: Path, jobs: int, seed: int | None
) -> None:
    """A refused batch leaves no file, no directory and no key."""
    with pytest.raises(InvalidInput):
        submitter.submit(jobs, seed)
    assert dump(connection) == {}
    assert list(root.iterdir()) == []


def test_submit_without_storage_leaves_no_batch(connection: Connection, redis_url: str, tmp_path: Path) -> None:
    """When batch.json cannot be written no batch is accepted."""
    (tmp_path / "file").write_text("")
    submitter = Submitter(connection, queue.make_app(redis_url), tmp_path / "file")
    with pytest.raises(StorageUnavailable):
        submitter.submit(5)
    assert connection.command("ZCARD", keys.BATCHES) == 0


def test_submit_without_broker(root: Path) -> None:
    """Without Redis a submit is BrokerUnavailable, and the directory has no batch."""
    url = "redis://127.0.0.1:1"
    submitter = Submitter(Connection(url, timeout_seconds=0.5, retries=0), queue.make_app(url), root)
    with pytest.raises(BrokerUnavailable):
        submitter.submit(5)
    assert list(root.iterdir()) == []


def test_start_up_is_once_per_key(submitter: Submitter, connection: Connection, root: Path) -> None:
    """However often a container's process starts, its start-up batch is submitted once, also when it has ended."""
    first = submitter.start_up(configured(root), "c1")
    assert submitter.start_up(configured(root), "c1") == first
    finish(connection, first.id)
    assert submitter.start_up(configured(root), "c1") == first
    assert connection.command("ZCARD", keys.BATCHES) == 1
    assert outputs.read_spec(root) == first


@pytest.mark.parametrize("seed", [None, 42])
def test_a_new_container_takes_over_a_running_batch(submitter: Submitter, root: Path, seed: int | None) -> None:
    """A batch of the same size and seed that still runs goes on; it is not started again."""
    first = submitter.start_up(configured(root, seed=42), "c1")
    assert submitter.start_up(configured(root, seed=seed), "c2") == first
    assert submitter.start_up(configured(root, seed=seed), "c2") == first


@pytest.mark.parametrize(("jobs", "seed"), [(6, 42), (5, 43)])
def test_another_size_or_seed_replaces_a_running_batch(
    submitter: Submitter, connection: Connection, root: Path, jobs: int, seed: int
) -> None:
    """A running batch that is not what is wanted any more is cancelled, its files kept aside."""
    first = submitter.start_up(configured(root, seed=42), "c1")
    (root / "job_1.csv").write_text("of the first")
    second = submitter.start_up(configured(root, jobs, seed), "c2")
    assert second.id > first.id
    assert (second.jobs, second.seed) == (jobs, seed)
    assert counted(connection, first.id) == {"CANCELLED": 5}
    assert counted(connection, second.id) == {"PENDING": jobs}
    assert (root / str(first.id) / "job_1.csv").read_text() == "of the first"
    assert not (root / "job_1.csv").exists()
    assert outputs.read_spec(root / str(first.id)) == first
    assert outputs.read_spec(root) == second
    current = submitter.current()
    assert current is not None
    assert current.spec == second


def test_an_ended_batch_is_archived_by_the_next(submitter: Submitter, connection: Connection, root: Path) -> None:
    """The next life of the container starts anew, the same numbers when the seed is set, and keeps the old files."""
    first = submitter.start_up(configured(root, seed=7), "c1")
    (root / "job_1.csv").write_text("1")
    finish(connection, first.id)
    second = submitter.start_up(configured(root, seed=7), "c2")
    assert (second.id != first.id, second.seed) == (True, 7)
    assert (root / str(first.id) / "job_1.csv").read_text() == "1"


def test_after_redis_was_wiped_no_id_is_used_again(submitter: Submitter, connection: Connection, root: Path) -> None:
    """An empty Redis beside an old outputs directory: the new batch gets a new number, the old files stay whole."""
    first = submitter.start_up(configured(root), "c1")
    (root / "job_1.csv").write_text("1")
    connection.command("FLUSHALL")
    second = submitter.start_up(configured(root), "c2")
    assert second.id > first.id
    assert (root / str(first.id) / "job_1.csv").read_text() == "1"


def test_a_failed_start_up_can_be_tried_again(submitter: Submitter, connection: Connection, root: Path) -> None:
    """A Redis that refuses the batch leaves no key behind, so the next try submits it."""
    connection.command("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerUnavailable):
            submitter.start_up(configured(root), "c1")
    finally:
        connection.command("CONFIG", "SET", "maxmemory", 0)
    spec = submitter.start_up(configured(root), "c1")
    assert counted(connection, spec.id) == {"PENDING": 5}


def test_rerun(submitter: Submitter, connection: Connection, root: Path) -> None:
    """A rerun is a Conflict before the first batch and while one runs; then it has the same size and a new seed."""
    with pytest.raises(Conflict, match="no start-up batch"):
        submitter.rerun()
    first = submitter.start_up(configured(root, seed=1), "c1")
    with pytest.raises(Conflict, match="still runs: 0 of 5"):
        submitter.rerun()
    finish(connection, first.id)
    second = submitter.rerun()
    assert (second.jobs, second.startup) == (first.jobs, True)
    assert second.seed != first.seed
    assert counted(connection, second.id) == {"PENDING": 5}


def test_two_submitters_of_one_directory(submitter: Submitter, root: Path) -> None:
    """While another process holds the directory, a start-up is refused with what to do; then it works."""
    with exclusive(root), pytest.raises(Conflict, match="in use"):
        submitter.start_up(configured(root), "c1")
    assert submitter.start_up(configured(root), "c1").jobs == 5


def test_exclusive_without_a_directory(tmp_path: Path) -> None:
    """A lock in a directory that is not there is StorageUnavailable."""
    with pytest.raises(StorageUnavailable), exclusive(tmp_path / "missing"):
        pass


def test_a_cancelled_batchs_slot_cannot_touch_the_next(
    submitter: Submitter, connection: Connection, root: Path
) -> None:
    """A slot that still holds a range of the replaced batch can neither commit nor write a file."""
    first = submitter.start_up(configured(root, seed=1), "c1")
    lease, _ = ranges.claim(connection, (0, ""), worker="w", slot="s", lease_seconds=60, slice_seconds=1)
    assert lease is not None
    with JobWriter(root, first, "w", "none") as writer:
        second = submitter.start_up(configured(root, jobs=6), "c2")
        with pytest.raises(FileNotFoundError):
            writer.write(1, b"late")
    assert ranges.commit(connection, lease, slice_of(1, [1.0]), lease_seconds=60, slice_seconds=1).word == "stale"
    assert counted(connection, second.id) == {"PENDING": 6}
    assert isinstance(second, BatchSpec)


def test_a_sweep_says_its_size(submitter: Submitter, connection: Connection, root: Path) -> None:
    """Before NUM_JOBS; a number that was asked for must be the same."""
    options = read_options({"simulation": "faulty", "sweep": {"axes": {"raises": [0, 0.1]}}})
    with pytest.raises(InvalidInput, match="jobs is 7, but the sweep has 2"):
        submitter.start_up(configured(root), "c1", jobs=7, options=options)
    assert batches.all_ids(connection) == []
    assert submitter.start_up(configured(root), "c1", options=options).jobs == 2
    assert submitter.start_up(configured(root), "c2", jobs=2, options=options).jobs == 2
