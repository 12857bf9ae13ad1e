"""Older start-up batches move to a directory of their own: nothing is mixed, nothing is lost."""

import contextlib
from pathlib import Path

import pytest

from common import outputs
from common.batch import BatchSpec
from common.errors import StorageUnavailable

FOREIGN = {"notes.txt": b"mine", "job_x.csv": b"mine", "data.csv": b"mine"}


def fill(root: Path, batch: int, jobs: int, *, spec: bool = True) -> dict[str, bytes]:
    """What start-up batch ``batch`` leaves in ``root``; every file says whose it is."""
    made = {f"job_{index}.csv": f"{batch}/{index}".encode() for index in range(1, jobs + 1)}
    made |= {
        "results.csv": f"{batch}/r".encode(),
        "points.csv": f"{batch}/p".encode(),
        "errors.txt": f"{batch}/e".encode(),
        "results.parquet": b"p",
        "summary.json": f"{batch}/s".encode(),
    }
    if spec:
        outputs.prepare(root, BatchSpec(batch, jobs, 1, startup=True))
    for name, data in made.items():
        (root / name).write_bytes(data)
    return made


def content(place: Path) -> dict[str, bytes]:
    """The files right in a directory, without the lock files and batch.json."""
    return {
        p.name: p.read_bytes() for p in place.iterdir() if p.is_file() and p.name != "batch.json" and p.name[0] != "."
    }


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The process dies instead of its ``step``-th rename."""
    real, calls = Path.rename, []

    def rename(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == step:
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)


def test_nothing_to_archive(root: Path) -> None:
    """An empty directory, or one with foreign files only, stays as it is."""
    assert outputs.archive_startup(root) is None
    for name, data in FOREIGN.items():
        (root / name).write_bytes(data)
    assert outputs.archive_startup(root) is None
    assert content(root) == FOREIGN


def test_moves_all_of_the_batch_and_nothing_else(root: Path) -> None:
    """The batch's files go to <id>/, foreign ones stay, and the fence is gone."""
    made = fill(root, 4, 20)
    for name, data in FOREIGN.items():
        (root / name).write_bytes(data)
    assert outputs.archive_startup(root) == (4, len(made))
    assert content(root) == FOREIGN
    assert content(root / "4") == made
    found = outputs.read_spec(root / "4")
    assert found is not None
    assert found.id == 4
    assert not outputs.staging(root, found).exists()
    assert outputs.archive_startup(root) is None


def test_batches_are_never_mixed(root: Path) -> None:
    """Several batches, one after the other, each keep exactly their own files."""
    made = {}
    for batch, jobs in ((1, 30), (2, 5), (5, 12)):
        made[batch] = fill(root, batch, jobs)
        outputs.archive_startup(root)
    assert {batch: content(root / str(batch)) for batch in made} == made


def test_files_without_a_specification_get_a_new_number(root: Path) -> None:
    """Files of a version without batch.json go where no other batch is."""
    (root / "8").mkdir()
    made = fill(root, 0, 3, spec=False)
    assert outputs.archive_startup(root) == (9, len(made))
    assert content(root / "9") == made


def test_unreadable_specification_moves_with_the_files(root: Path) -> None:
    """A broken batch.json is kept beside its files."""
    made = fill(root, 0, 3, spec=False)
    (root / "batch.json").write_text("{")
    assert outputs.archive_startup(root) == (1, len(made))
    assert (root / "1" / "batch.json").read_text() == "{"


@pytest.mark.parametrize("step", range(1, 10))
def test_interrupted_at_any_rename(root: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Whichever rename the process dies at, the next call completes the move: all files, one place."""
    made = fill(root, 4, 4)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            outputs.archive_startup(root)
    assert outputs.archive_startup(root) is not None
    assert content(root) == {}
    assert content(root / "4") == made
    assert outputs.read_spec(root / "4") is not None


@pytest.mark.parametrize("step", range(1, 8))
def test_interrupted_without_a_specification(root: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Files without batch.json stay together, too, when the move is interrupted."""
    made = fill(root, 0, 4, spec=False)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            outputs.archive_startup(root)
    outputs.archive_startup(root)
    places = [path for path in root.iterdir() if path.is_dir()]
    assert [content(place) for place in places] == [made]


def test_never_overwrites(root: Path) -> None:
    """A file that is in the target already, whoever put it there, is not destroyed."""
    (root / "4").mkdir()
    (root / "4" / "job_1.csv").write_bytes(b"precious")
    fill(root, 4, 2)
    with contextlib.suppress(StorageUnavailable):
        outputs.archive_startup(root)
    kept = {path.read_bytes() for path in root.rglob("job_1*")}
    assert kept == {b"precious", b"4/1"}


def test_target_that_cannot_be_made(root: Path) -> None:
    """A file in the target's place is StorageUnavailable, and nothing has moved."""
    made = fill(root, 4, 2)
    (root / "4").write_text("in the way")
    with pytest.raises(StorageUnavailable):
        outputs.archive_startup(root)
    assert content(root) == {**made, "4": b"in the way"}
