"""Packed segments: what was written is read back, whatever is cut off, flipped, or written at the same time."""

import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import outputs, packed, packed_writer
from common.batch import BatchSpec
from common.packed_index import PackedReader, write_index
from common.packed_writer import PackedWriter
from tests.support import REPO, environment
from tests.unit.packed_support import (
    JOBS,
    SLICES,
    SPEC,
    append,
    block_ends,
    data_of,
    prepared,
    put_into,
    readable,
    segment,
)

APPEND = """
import sys
from pathlib import Path
from common.batch import BatchSpec
from common.packed_writer import PackedWriter
spec = BatchSpec(7, 100_000, 42)
with PackedWriter(Path(sys.argv[1]), spec, sys.argv[2], "none") as writer:
    for first in range(int(sys.argv[3]), 100_000, 200):
        for index in range(first, first + 100):
            writer.write(index, b"%d," % index * 20)
        writer.sync()
"""


@settings(deadline=None)
@given(SLICES, st.sampled_from([1, 60, 4 * 2**20]))
def test_any_slices_read_back(slices: list[tuple[int, list[int]]], flush_bytes: int) -> None:
    """Slots, repeated jobs, gaps, empty slices, blocks in the middle of a slice: one reader follows all of it."""
    with prepared() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_writer, "FLUSH_BYTES", flush_bytes)
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
    """Each byte of a segment, flipped in three ways: its block is gone, all before and behind it is there."""
    slices = [[1, 2, 5], [9], [20, 21, 3]]
    with prepared() as root:
        append(root, "a", *slices)
        good, ends = segment(root).read_bytes(), block_ends(segment(root))
        for position in range(len(good)):
            broken = sum(end <= position for end in ends)
            others = {index for indices in slices[:broken] + slices[broken + 1 :] for index in indices}
            for flip in (0x01, 0x80, 0xFF):
                bad = bytearray(good)
                bad[position] ^= flip
                put_into(root, bytes(bad))
                reader = PackedReader(root / "7")
                found = {int(row) + 1 for row in np.flatnonzero(reader.present(JOBS))}
                assert found == others, position


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
