"""The outputs directory: whole files or none, and a fence against late writers."""

import errno
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import outputs
from common.batch import BatchSpec
from common.errors import NotFound, StorageUnavailable
from common.job_writer import JobWriter

SPEC = BatchSpec(7, 100, 42)
STARTUP = BatchSpec(7, 100, 42, startup=True)
DATA = b"a,b\r\n" + b"1,2\r\n" * 20


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """A disk on which no file can grow beyond ``left`` bytes: it takes a part of a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("spec", [SPEC, STARTUP])
@pytest.mark.parametrize("durability", ["none", "slice", "file"])
def test_write_puts_whole_files_into_place(root: Path, spec: BatchSpec, durability: str) -> None:
    """Every file has its bytes and its name, and nothing else is left in sight."""
    outputs.prepare(root, spec)
    with JobWriter(root, spec, "w-0", durability) as writer:
        writer.write(1, DATA)
        writer.write(2, DATA[:9])
        writer.write(1, DATA)
        writer.sync()
    place = outputs.directory(root, spec)
    assert {path.name: path.read_bytes() for path in place.glob("job_*")} == {"job_1.csv": DATA, "job_2.csv": DATA[:9]}
    assert list(outputs.staging(root, spec).iterdir()) == []
    assert outputs.read_spec(place) == spec


def test_two_slots_write_one_batch(root: Path) -> None:
    """Slots of one batch do not disturb each other's temporary files."""
    outputs.prepare(root, SPEC)
    with JobWriter(root, SPEC, "a", "none") as one, JobWriter(root, SPEC, "b", "none") as other:
        one.write(1, DATA)
        other.write(2, DATA)
        one.write(3, DATA)
    assert sorted(path.name for path in (root / "7").glob("job_*")) == ["job_1.csv", "job_2.csv", "job_3.csv"]


def test_fence_stops_a_late_writer(root: Path) -> None:
    """Once the staging directory is removed, a writer that was open fails with ENOENT and leaves nothing."""
    outputs.prepare(root, STARTUP)
    with JobWriter(root, STARTUP, "w", "none") as writer:
        writer.write(1, DATA)
        outputs.remove_staging(root, STARTUP)
        outputs.remove_staging(root, STARTUP)
        with pytest.raises(OSError, match="No such file") as caught:
            writer.write(2, DATA)
    assert caught.value.errno == errno.ENOENT
    assert sorted(path.name for path in root.iterdir()) == ["batch.json", "job_1.csv"]


def test_fence_of_a_new_batch_does_not_let_the_old_in(root: Path) -> None:
    """A writer of the old batch cannot write while the next batch runs in the same directory."""
    outputs.prepare(root, STARTUP)
    with JobWriter(root, STARTUP, "w", "none") as old:
        outputs.archive_startup(root)
        outputs.prepare(root, BatchSpec(8, 5, 1, startup=True))
        with pytest.raises(FileNotFoundError):
            old.write(1, DATA)
    assert not list(root.glob("job_*"))


def test_writer_needs_a_prepared_batch(root: Path) -> None:
    """Without the staging directory no writer opens, and no descriptor leaks."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(FileNotFoundError):
        JobWriter(root, SPEC, "w", "none")
    assert not before or len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("left", [0, 10])
def test_full_disk_shows_no_half_file(root: Path, left: int) -> None:
    """A write that does not fit raises, and the file of an earlier attempt stays whole."""
    outputs.prepare(root, SPEC)
    with JobWriter(root, SPEC, "w", "slice") as writer:
        writer.write(1, DATA)
        with full_disk(left):
            for index in (1, 2):
                with pytest.raises(OSError, match="too large"):
                    writer.write(index, DATA)
        writer.write(3, DATA)
    assert {path.name: path.read_bytes() for path in (root / "7").glob("job_*")} == {
        "job_1.csv": DATA,
        "job_3.csv": DATA,
    }


def test_full_disk_keeps_the_old_specification(root: Path) -> None:
    """batch.json is replaced as a whole or not at all, and the error names OUTPUT_DIR."""
    outputs.prepare(root, STARTUP)
    with full_disk(5), pytest.raises(StorageUnavailable) as caught:
        outputs.prepare(root, BatchSpec(8, 5, 1, startup=True))
    assert caught.value.field == "OUTPUT_DIR"
    assert outputs.read_spec(root) == STARTUP


def test_probe_on_a_full_disk(root: Path) -> None:
    """The probe says that the disk is full, and leaves no file."""
    with full_disk(0), pytest.raises(StorageUnavailable, match="cannot be written"):
        outputs.probe(root)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("place", ["missing", "file"])
def test_probe_and_prepare_name_what_is_wrong(tmp_path: Path, place: str) -> None:
    """A missing directory or a file in its place is StorageUnavailable, never an OSError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable):
        outputs.probe(tmp_path / place)
    with pytest.raises(StorageUnavailable):
        outputs.prepare(tmp_path / "file", SPEC)


def test_read_spec_of_anything_else_is_none(root: Path) -> None:
    """A missing, half or foreign batch.json is None, not an exception."""
    for text in (None, "", "{", "[]", "7", '"x"', "{}", '{"id": 1}'):
        if text is not None:
            (root / "batch.json").write_text(text)
        assert outputs.read_spec(root) is None, text
    (root / "batch.json").write_bytes(b"\xff\xfe")
    assert outputs.read_spec(root) is None


def test_highest_id(root: Path) -> None:
    """The largest of the numbered directories and batch.json; nothing else counts."""
    assert outputs.highest_id(root / "missing") == 0
    assert outputs.highest_id(root) == 0
    for name in ("3", "12", "x9", ".99", "7a"):
        (root / name).mkdir()
    assert outputs.highest_id(root) == 12
    outputs.prepare(root, BatchSpec(40, 1, 1, startup=True))
    assert outputs.highest_id(root) == 40


ODD_NAMES = [
    "", ".", "..", "job_1.csv/", "/job_1.csv", "../outputs/job_1.csv", "a/../job_1.csv", "job_0.csv", "job_01.csv",
    "job_-1.csv", "job_+1.csv", "job_1.CSV", "JOB_1.csv", "job_1.csv\n", "\njob_1.csv", "job_1.csv\0", "job_1\0.csv",
    "job_1.csv ", " job_1.csv", "job_\u0661.csv", "job_\uff11.csv", "job_1_0.csv", "job_1e1.csv", "job_.csv",
    "job_1.csv.tmp", "batch.json", ".staging-7", "x" * 5000, "job_2.csv", "job_3.csv", "job_4.csv", "job_5.csv",
    "job_99999999999.csv",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_find_file_refuses(root: Path, name: str) -> None:
    """Anything but a regular job_<number>.csv is not found: other names, links, directories, and what is absent."""
    (root / "job_1.csv").write_bytes(DATA)
    (root.parent / "secret").write_text("s")
    (root / "job_2.csv").symlink_to(root.parent / "secret")
    (root / "job_3.csv").symlink_to("job_1.csv")
    (root / "job_4.csv").mkdir()
    with pytest.raises(NotFound):
        outputs.find_file(root, name)
    assert outputs.find_file(root, "job_1.csv") == root / "job_1.csv"


@pytest.mark.parametrize("name", outputs.RESULT_TYPES)
def test_find_file_of_results(root: Path, name: str) -> None:
    """The results files are found once they are there, and a link is not followed."""
    with pytest.raises(NotFound):
        outputs.find_file(root, name)
    (root / name).write_bytes(DATA)
    assert outputs.find_file(root, name) == root / name
    (root / name).rename(root.parent / "elsewhere")
    (root / name).symlink_to(root.parent / "elsewhere")
    with pytest.raises(NotFound):
        outputs.find_file(root, name)


@given(st.text())
def test_find_file_never_leaves_the_directory(name: str) -> None:
    """Whatever text a request holds, the answer is NotFound or a path right below the place."""
    with pytest.raises(NotFound):
        outputs.find_file(Path("/nowhere"), name)


def test_find_file_in_a_place_that_cannot_be() -> None:
    """A directory name that is longer than the file system takes is NotFound too."""
    with pytest.raises(NotFound):
        outputs.find_file(Path("/tmp") / ("9" * 300), "job_1.csv")
