"""The writer of packed segments: full disks, durability, two writers of one slot, the fence."""

import errno
import gc
import os
from pathlib import Path

import pytest

from common import outputs, packed, packed_writer
from common.batch import BatchSpec
from common.packed import lock_file
from common.packed_index import PackedReader, write_index
from common.packed_writer import PackedWriter
from tests.unit.packed_support import (
    JOBS,
    SPEC,
    STARTUP,
    append,
    data_of,
    full_disk,
    readable,
    segment,
)


@pytest.mark.parametrize("left", range(0, 400, 23))
def test_full_disk_leaves_whole_blocks(root: Path, left: int) -> None:
    """A block that does not fit raises and leaves no bytes; with room again the same sync writes it."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    first = segment(root).stat().st_size
    with PackedWriter(root, SPEC, "a", "slice") as writer:
        for index in range(2, 20):
            writer.write(index, data_of(index))
        with full_disk(first + left), pytest.raises(OSError, match="too large"):
            writer.sync()
        assert segment(root).stat().st_size == first
        assert readable(root) == {1}
        writer.sync()
        writer.write(30, data_of(30))
        writer.sync()
    assert readable(root) == {*range(1, 20), 30}


def test_full_disk_that_cannot_even_truncate(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torn bytes that could not be cut off are overwritten by the next block, and cut off by the next writer."""
    outputs.prepare(root, SPEC)
    with PackedWriter(root, SPEC, "a", "none") as writer:
        for index in range(1, 30):
            writer.write(index, data_of(index))
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
            with full_disk(500), pytest.raises(OSError, match="too large"):
                writer.sync()
        assert segment(root).stat().st_size == 500
        writer.sync()
    append(root, "a", [30])
    assert readable(root) == set(range(1, 31))


def test_short_writes_are_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes seven bytes at a time gets all of them in order."""
    outputs.prepare(root, SPEC)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    append(root, "a", [1, 2, 3], [4])
    write_index(root / "7", JOBS)
    assert readable(root) == {1, 2, 3, 4}


def test_write_that_fails_takes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a full buffer cannot be written, the job that came with it is refused, and the others are kept."""
    monkeypatch.setattr(packed_writer, "FLUSH_BYTES", 50)
    outputs.prepare(root, SPEC)
    with PackedWriter(root, SPEC, "a", "none") as writer:
        writer.write(1, b"x" * 60)
        with full_disk(10), pytest.raises(OSError, match="too large"):
            writer.write(2, data_of(2))
        writer.sync()
    reader = PackedReader(root / "7")
    assert (reader.read(1), reader.read(2)) == (b"x" * 60, None)


@pytest.mark.parametrize("index", [0, -1, JOBS + 1])
def test_a_job_that_the_batch_has_not(root: Path, index: int) -> None:
    """It is refused at once, rather than with all jobs of its block."""
    outputs.prepare(root, SPEC)
    with PackedWriter(root, SPEC, "a", "none") as writer, pytest.raises(ValueError, match="cannot be written"):
        writer.write(index, b"")


@pytest.mark.parametrize(
    ("durability", "calls"), [("none", ""), ("slice", "data dir dir data"), ("file", "data dir dir data")]
)
def test_durability(root: Path, monkeypatch: pytest.MonkeyPatch, durability: str, calls: str) -> None:
    """One fdatasync for each slice that wrote something; the two directories with the first; none if not asked for."""
    outputs.prepare(root, SPEC)
    seen: list[str] = []
    monkeypatch.setattr(packed_writer, "_sync_data", lambda _: seen.append("data"))
    monkeypatch.setattr(os, "fsync", lambda _: seen.append("dir"))
    append(root, "a", [1, 2], [], [3], durability=durability)
    assert seen == calls.split()


def test_each_job_is_written_once(root: Path) -> None:
    """A slice is one block, and what was synced is not written again."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 2, 3], [], [9])
    with segment(root).open("rb") as file:
        found = [block.indices.tolist() for block in packed.blocks(file.fileno(), 0, segment(root).stat().st_size)]
    assert found == [[1, 2, 3], [9]]


def test_failed_sync_closes_the_segment_for_ever(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later syncs of the writer fail, and the slot's next writer appends to another segment."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    reader = PackedReader(root / "7")
    assert readable(root, reader) == {1}
    with PackedWriter(root, SPEC, "a", "slice") as writer, monkeypatch.context() as patch:
        patch.setattr(packed_writer, "_sync_data", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        writer.write(2, data_of(2))
        with pytest.raises(OSError, match="no"):
            writer.sync()
        patch.undo()
        with pytest.raises(OSError, match="open another"):
            writer.sync()
    old = next(segment(root).parent.glob("segment-a.*.bin"))
    before = old.read_bytes()
    assert readable(root, reader) == {1, 2}
    append(root, "a", [3])
    assert readable(root, reader) == readable(root) == {1, 2, 3}
    assert old.read_bytes() == before


def test_a_segment_that_was_given_up_leaves_its_name_free(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that looks again only when the slot has long written more finds no other job's bytes where one was."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 2])
    reader = PackedReader(root / "7")
    assert readable(root, reader) == {1, 2}
    for index in (3, 4):
        with PackedWriter(root, SPEC, "a", "slice") as writer, monkeypatch.context() as patch:
            patch.setattr(packed_writer, "_sync_data", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
            writer.write(index, data_of(index))
            with pytest.raises(OSError, match="no"):
                writer.sync()
        append(root, "a", *([job] for job in range(40, 50)))
    assert readable(root, reader) == readable(root) == {1, 2, 3, 4, *range(40, 50)}
    names = {path.name for path in segment(root).parent.glob("segment-*")}
    assert names == {"segment-a.closed.bin", "segment-a.1.closed.bin", "segment-a.2.bin"}


def test_a_segment_that_is_given_up_while_another_opens_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zombie gives its segment up just as its successor takes it: the name is not written to again."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 2])
    reader = PackedReader(root / "7")
    assert readable(root, reader) == {1, 2}

    def late(name: str, place: int) -> int | None:
        monkeypatch.undo()
        segment(root).rename(segment(root, "a.closed"))
        return lock_file(name, place)

    monkeypatch.setattr(packed_writer, "lock_file", late)
    append(root, "a", *([job] for job in range(40, 50)))
    assert readable(root, reader) == {1, 2, *range(40, 50)}


def test_two_writers_of_one_slot(root: Path) -> None:
    """While a zombie holds the slot's segment, its successor takes the next one; later ones take the first again."""
    outputs.prepare(root, SPEC)
    with PackedWriter(root, SPEC, "h/0 ü", "none") as zombie, PackedWriter(root, SPEC, "h/0 ü", "none") as writer:
        for index, one in enumerate([zombie, writer, zombie, writer], 1):
            one.write(index, data_of(index))
            one.sync()
    append(root, "h/0 ü", [9])
    names = sorted(path.name for path in (root / "7" / "packed").iterdir())
    assert names == ["segment-h_0__.1.bin", "segment-h_0__.bin"]
    assert readable(root) == {1, 2, 3, 4, 9}


def test_fence_stops_a_late_writer(root: Path) -> None:
    """Once the staging directory was removed, sync raises ENOENT and adds nothing, also after it was made again."""
    outputs.prepare(root, SPEC)
    with PackedWriter(root, SPEC, "a", "slice") as writer:
        writer.write(1, data_of(1))
        writer.sync()
        writer.write(2, data_of(2))
        outputs.remove_staging(root, SPEC)
        for _ in range(2):
            with pytest.raises(FileNotFoundError) as caught:
                writer.sync()
            outputs.prepare(root, SPEC)
    assert caught.value.errno == errno.ENOENT
    assert readable(root) == {1}


def test_writer_needs_a_prepared_batch(root: Path) -> None:
    """Without the staging directory no writer opens, nothing is made, and no descriptor leaks."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(FileNotFoundError):
        PackedWriter(root, SPEC, "w", "none")
    assert not before or len(os.listdir("/proc/self/fd")) <= before
    assert list(root.iterdir()) == []


def test_opening_while_the_batch_is_moved_away(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that opens just as the next start-up batch takes over makes no segment in that one's directory."""
    outputs.prepare(root, STARTUP)
    real = Path.mkdir

    def overtaken(path: Path) -> None:
        monkeypatch.undo()
        outputs.archive_startup(root)
        outputs.prepare(root, BatchSpec(8, 5, 1, startup=True))
        real(path)

    monkeypatch.setattr(Path, "mkdir", overtaken)
    with pytest.raises(FileNotFoundError):
        PackedWriter(root, STARTUP, "a", "none")
    assert list((root / "packed").iterdir()) == []


def test_lock_of_a_file_that_was_renamed_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets the lock only after the file was put into place does not get to write into it."""
    place, real = os.open(root, os.O_RDONLY), packed.fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        (root / "x").rename(root / "index.bin")
        real(descriptor, operation)

    monkeypatch.setattr(packed.fcntl, "flock", late)
    assert lock_file("x", place) is None
    os.close(place)
