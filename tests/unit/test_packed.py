"""Packed output: what was written is read back, whatever is cut off, flipped, written twice or at the same time."""

import errno
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import outputs, packed
from common.batch import BatchSpec
from common.errors import Conflict
from common.packed import PackedWriter, lock_file
from common.packed_index import PackedReader, write_index
from tests.support import REPO, environment

JOBS = 60
SPEC = BatchSpec(7, JOBS, 42)
STARTUP = BatchSpec(7, JOBS, 42, startup=True)
SLICES = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(1, JOBS), max_size=8)),
    max_size=12,
)


def data_of(index: int) -> bytes:
    """A CSV whose length differs from job to job; job 5's is empty."""
    return b"" if index == 5 else b"a,b\r\n%d,%s\r\n" % (index, b"x" * (index * 7 % 40))


@contextmanager
def prepared(spec: BatchSpec = SPEC) -> Iterator[Path]:
    """An outputs directory with a prepared batch, for each example of a property."""
    parent = Path(tempfile.mkdtemp(prefix="bso-"))
    try:
        outputs.prepare(parent, spec)
        yield parent
    finally:
        shutil.rmtree(parent)


def append(root: Path, slot: str, *slices: list[int], durability: str = "none") -> None:
    with PackedWriter(root, SPEC, slot, durability) as writer:
        for indices in slices:
            for index in indices:
                writer.write(index, data_of(index))
            writer.sync()


def segment(root: Path, slot: str = "a") -> Path:
    return root / "7" / "packed" / f"segment-{slot}.bin"


def readable(root: Path, reader: PackedReader | None = None) -> set[int]:
    """The jobs that can be read; every one has its bytes, and ``present`` says the same."""
    reader = reader or PackedReader(root / "7")
    found = {index: reader.read(index) for index in range(-1, JOBS + 3)}
    there = {index for index, data in found.items() if data is not None}
    assert all(found[index] == data_of(index) for index in there)
    assert {int(position) + 1 for position in np.flatnonzero(reader.present(JOBS + 2))} == there
    return there


def block_ends(path: Path) -> list[int]:
    with path.open("rb") as file:
        return [block.end for block in packed.blocks(file.fileno(), 0, path.stat().st_size)]


def put_into(root: Path, content: bytes, slot: str = "a") -> None:
    segment(root, slot).parent.mkdir(exist_ok=True)
    segment(root, slot).write_bytes(content)


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """A disk on which no file can grow beyond ``left`` bytes: it takes a part of a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@settings(deadline=None)
@given(SLICES, st.sampled_from([1, 60, 4 * 2**20]))
def test_any_slices_read_back(slices: list[tuple[int, list[int]]], flush_bytes: int) -> None:
    """Slots, repeated jobs, gaps, empty slices, blocks in the middle of a slice: one reader follows all of it."""
    with prepared() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "FLUSH_BYTES", flush_bytes)
        writers = [PackedWriter(root, SPEC, f"w-{number}", "none") for number in range(3)]
        follower, written = PackedReader(root / "7"), set[int]()
        for slot, indices in slices:
            for index in indices:
                writers[slot].write(index, data_of(index))
            writers[slot].sync()
            written.update(indices)
            assert readable(root, follower) == written
        for writer in writers:
            writer.close()
        assert readable(root) == written
        write_index(root / "7", JOBS)
        assert readable(root) == written
        assert readable(root, follower) == written


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_truncation_loses_only_what_lies_beyond(data: st.DataObject) -> None:
    """Cut anywhere: the whole blocks before the cut stay, and what is appended after it can be read."""
    slices = data.draw(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=5), min_size=1, max_size=5))
    with prepared() as root:
        append(root, "a", *slices)
        ends = block_ends(segment(root))
        watching = PackedReader(root / "7")
        readable(root, watching)
        cut = data.draw(st.integers(0, ends[-1]))
        os.truncate(segment(root), cut)
        kept = {index for end, indices in zip(ends, slices, strict=True) if end <= cut for index in indices}
        assert readable(root) == kept
        assert readable(root, watching) == kept
        append(root, "a", [51, 52])
        assert readable(root) == kept | {51, 52}
        assert readable(root, watching) == kept | {51, 52}
        assert segment(root).stat().st_size == block_ends(segment(root))[-1]


def test_every_flipped_byte_is_noticed() -> None:
    """Each byte of a segment, flipped in three ways: its block and later ones are gone, all before is there."""
    slices = [[1, 2, 5], [9], [20, 21, 3]]
    with prepared() as root:
        append(root, "a", *slices)
        good, ends = segment(root).read_bytes(), block_ends(segment(root))
        for position in range(len(good)):
            broken = sum(end <= position for end in ends)
            for flip in (0x01, 0x80, 0xFF):
                bad = bytearray(good)
                bad[position] ^= flip
                put_into(root, bytes(bad))
                reader = PackedReader(root / "7")
                found = {int(row) + 1 for row in np.flatnonzero(reader.present(JOBS))}
                assert found == {index for indices in slices[:broken] for index in indices}, position


def test_a_block_of_impossible_jobs_is_none(root: Path) -> None:
    """A right CRC does not make a block: jobs out of range and lengths that do not add up are refused."""
    outputs.prepare(root, SPEC)
    for indices in ([], [0], [10**9]):
        put_into(root, packed.encode(indices, [b"x"] * len(indices)))
        assert block_ends(segment(root)) == []
    fields = struct.pack("<4sIIQ", b"BSPK", 1, 1, 4)
    body = struct.pack("<II4s", 1, 3, b"abcd")
    put_into(root, fields + struct.pack("<I", packed.zlib.crc32(fields + body)) + body)
    assert block_ends(segment(root)) == []


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
    monkeypatch.setattr(packed, "FLUSH_BYTES", 50)
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
    monkeypatch.setattr(packed, "_sync_data", lambda _: seen.append("data"))
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
        patch.setattr(packed, "_sync_data", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
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
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(FileNotFoundError):
        PackedWriter(root, SPEC, "w", "none")
    assert not before or len(os.listdir("/proc/self/fd")) == before
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


def test_reader_forgets_another_batchs_directory(root: Path) -> None:
    """When packed/ was moved away and another has its name, only the new one's jobs are found."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 2])
    reader = PackedReader(root / "7")
    assert readable(root, reader) == {1, 2}
    (root / "7" / "packed").rename(root / "moved")
    assert readable(root, reader) == set()
    append(root, "a", [2, 3])
    assert readable(root, reader) == {2, 3}


def test_reader_without_a_batch(root: Path) -> None:
    """Nothing there: no job, and no error."""
    assert PackedReader(root / "7").read(1) is None
    assert not PackedReader(root / "7").present(4).any()
    write_index(root / "7", JOBS)
    assert list(root.iterdir()) == []


def test_links_are_not_followed(root: Path) -> None:
    """A link that is called like a segment or an index is none."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    write_index(root / "7", JOBS)
    segment(root).rename(root / "elsewhere.bin")
    (segment(root).parent / "index.bin").rename(root / "index.bin")
    segment(root).symlink_to(root / "elsewhere.bin")
    (segment(root).parent / "index.bin").symlink_to(root / "index.bin")
    assert readable(root) == set()


def test_link_to_an_index_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the index that lies beside the segments is believed."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    write_index(root / "7", JOBS)
    (segment(root).parent / "index.bin").rename(root / "index.bin")
    (segment(root).parent / "index.bin").symlink_to(root / "index.bin")
    starts = count_scans(monkeypatch)
    assert PackedReader(root / "7").read(1) == data_of(1)
    assert starts == [0]


@pytest.mark.parametrize("indexed", [False, True])
def test_a_known_job_that_was_cut_off(root: Path, indexed: bool) -> None:
    """A reader that knows where a job lies gives all of its bytes or none, also when the file is gone."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 20])
    if indexed:
        write_index(root / "7", JOBS)
    for spoil in (lambda: os.truncate(segment(root), segment(root).stat().st_size - 1), segment(root).unlink):
        reader, good = PackedReader(root / "7"), segment(root).read_bytes()
        assert reader.read(20) == data_of(20)
        spoil()
        assert reader.read(20) is None
        put_into(root, good)


def test_an_index_that_points_elsewhere(root: Path) -> None:
    """A location outside of what was scanned of its segment, or of the list, is not read even if the CRC is right."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    end = segment(root).stat().st_size
    names = b'[["segment-a.bin", %d]]' % end
    for location in ((1, end, 4), (1, 2**63, 4), (2, 0, 4)):
        with segment(root).open("ab") as file:
            file.write(b"torn")
        fields, rest = struct.pack("<4sIII", b"BSPI", 1, 1, len(names)), names + struct.pack("<HQI", *location)
        crc = struct.pack("<I", packed.zlib.crc32(fields + rest))
        (segment(root).parent / "index.bin").write_bytes(fields + crc + rest)
        assert PackedReader(root / "7").read(1) is None


def count_scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each scan starts, from now on."""
    starts: list[int] = []
    real = packed.blocks

    def counted(descriptor: int, start: int, size: int) -> Iterator[packed.Block]:
        starts.append(start)
        return real(descriptor, start, size)

    monkeypatch.setattr("common.packed_index.blocks", counted)
    return starts


def test_only_what_is_new_is_scanned(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known jobs and unchanged segments cost no scan; a longer segment is scanned from where it had ended."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    end = segment(root).stat().st_size
    starts, reader = count_scans(monkeypatch), PackedReader(root / "7")
    assert (reader.read(1), reader.read(2), reader.read(1)) == (data_of(1), None, data_of(1))
    assert starts == [0]
    append(root, "a", [2])
    assert (reader.read(2), reader.read(3)) == (data_of(2), None)
    assert starts == [0, end]


def test_index_saves_the_scan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an index no block is scanned; what was appended after it is found all the same."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 2, 5])
    append(root, "b", [7])
    write_index(root / "7", JOBS)
    starts, reader = count_scans(monkeypatch), PackedReader(root / "7")
    assert [reader.read(index) for index in (1, 2, 5, 7)] == [data_of(index) for index in (1, 2, 5, 7)]
    assert starts == []
    end = segment(root).stat().st_size
    append(root, "a", [8])
    append(root, "c", [2, 9])
    assert reader.read(9) == data_of(9)
    assert sorted(starts) == sorted([0, end, segment(root, "b").stat().st_size])
    assert readable(root, reader) == {1, 2, 5, 7, 8, 9}
    write_index(root / "7", JOBS)
    assert readable(root) == {1, 2, 5, 7, 8, 9}


def test_damaged_index_costs_a_scan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any flipped byte and any cut of the index is noticed; the blocks say the same."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 5, 44])
    write_index(root / "7", JOBS)
    path = segment(root).parent / "index.bin"
    good = path.read_bytes()
    starts = count_scans(monkeypatch)
    damaged = [good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :] for position in range(len(good))]
    for bad in [*damaged, *(good[:cut] for cut in range(0, len(good), 37)), good + b"\0"]:
        path.write_bytes(bad)
        starts.clear()
        assert PackedReader(root / "7").read(44) == data_of(44)
        assert starts == [0]
    assert readable(root) == {1, 5, 44}


def test_index_of_segments_that_were_cut(root: Path) -> None:
    """An index that speaks of bytes that are gone is not believed, also by a reader that had believed it."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1], [2])
    append(root, "b", [2])
    write_index(root / "7", JOBS)
    reader = PackedReader(root / "7")
    assert readable(root, reader) == {1, 2}
    os.truncate(segment(root), segment(root).stat().st_size - 1)
    assert readable(root) == readable(root, reader) == {1, 2}
    segment(root, "b").unlink()
    assert readable(root) == readable(root, reader) == {1}


def test_one_process_writes_the_index(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one at the same time is refused; the first one's death frees it, and its torn file does no harm."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    place = os.open(root / "7" / "packed", os.O_RDONLY)
    held = lock_file(".index.tmp", place)
    assert held is not None
    os.write(held, b"x" * 5000)
    with pytest.raises(Conflict):
        write_index(root / "7", JOBS)
    os.close(held)
    os.close(place)
    write_index(root / "7", JOBS)
    starts = count_scans(monkeypatch)
    assert PackedReader(root / "7").read(1) == data_of(1)
    assert starts == []
    assert sorted(path.name for path in segment(root).parent.iterdir()) == ["index.bin", "segment-a.bin"]


def test_lock_of_a_file_that_was_renamed_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets the lock only after the file was put into place does not get to write into it."""
    place, real = os.open(root, os.O_RDONLY), packed.fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        (root / "x").rename(root / "index.bin")
        real(descriptor, operation)

    monkeypatch.setattr(packed.fcntl, "flock", late)
    assert lock_file("x", place) is None
    os.close(place)


APPEND = """
import sys
from pathlib import Path
from common.batch import BatchSpec
from common.packed import PackedWriter
spec = BatchSpec(7, 100_000, 42)
with PackedWriter(Path(sys.argv[1]), spec, sys.argv[2], "none") as writer:
    for first in range(int(sys.argv[3]), 100_000, 200):
        for index in range(first, first + 100):
            writer.write(index, b"%d," % index * 20)
        writer.sync()
"""


def test_reading_while_others_append(root: Path) -> None:
    """Two processes append; whatever threads of a reader find meanwhile is whole, and in the end all is there."""
    spec = BatchSpec(7, 100_000, 42)
    outputs.prepare(root, spec)
    kept = {"cwd": REPO, "env": environment()}
    processes = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(root), slot, first], **kept)  # type: ignore[call-overload]
        for slot, first in (("a", "1"), ("b", "101"))
    ]
    reader, wrong, found = PackedReader(root / "7"), list[int](), set[int]()

    def look(offset: int) -> None:
        while any(process.poll() is None for process in processes):
            for index in range(offset, 100_000, 997):
                data = reader.read(index)
                if data is not None:
                    found.add(index)
                    if data != b"%d," % index * 20:
                        wrong.append(index)

    threads = [threading.Thread(target=look, args=(offset,)) for offset in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    assert not wrong
    assert reader.present(100_000).all()
    assert reader.read(100_000) == b"100000," * 20
