"""Segments that have rotted: what is whole stays, its slot goes on in another, and what is lost is told."""

import os
from pathlib import Path

import pytest

from common import outputs, packed_writer
from common.packed_index import PackedReader, write_index
from common.packed_writer import PackedWriter
from tests.unit.packed_support import (
    JOBS,
    SPEC,
    append,
    block_ends,
    data_of,
    flip,
    prepared,
    readable,
    segment,
)

SLICES = [[1, 2, 5], [9], [20, 21, 3]]


def names(root: Path) -> list[str]:
    """The segments that there are."""
    return sorted(path.name for path in segment(root).parent.glob("segment-*"))


@pytest.mark.parametrize("indexed", [False, True])
def test_no_whole_block_is_cut_off(indexed: bool) -> None:
    """Any byte rots, then the slot goes on: only the damaged block's jobs are lost, and nothing that an index tells of.

    Without an index a damaged last block is as one that was not written to its end.
    """
    with prepared() as root:
        append(root, "a", *SLICES)
        good, ends = segment(root).read_bytes(), block_ends(segment(root))
        for position in range(0, len(good), 3):
            for path in segment(root).parent.iterdir():
                path.unlink()
            segment(root).write_bytes(good)
            if indexed:
                write_index(root / "7", JOBS)
            flip(segment(root), position)
            rotten = segment(root).read_bytes()
            for job in (50, 51):
                append(root, "a", [job])
            damaged = sum(end <= position for end in ends)
            others = {index for number, indices in enumerate(SLICES) if number != damaged for index in indices}
            checked = PackedReader(root / "7", checked=True)
            assert readable(root, checked) == others | {50, 51}, position
            assert bool(checked.damage()) == (indexed or damaged < 2)
            if indexed or damaged < 2:
                assert segment(root).read_bytes() == rotten
                assert names(root) == ["segment-a.1.bin", "segment-a.bin"]
            else:
                assert names(root) == ["segment-a.bin"]
            # The next end's index tells of the same.
            write_index(root / "7", JOBS)
            assert readable(root) == others | {50, 51}


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"BSPK" * 50, bytes(range(1, 256)) * 12, b"B", b"BSPK\1\0\0\0"])
def test_a_torn_end_is_cut_off(root: Path, tail: bytes) -> None:
    """Zeros and garbage, as a power cut leaves them, need no further file; nor does a block that was cut short."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1, 2])
    write_index(root / "7", JOBS)
    good = segment(root).read_bytes()
    for torn in (tail, good[:-1], good[:-1] + tail):
        segment(root).write_bytes(good + torn)
        append(root, "a", [3])
        assert names(root) == ["segment-a.bin"]
        assert PackedReader(root / "7", checked=True).damage() == []
        assert readable(root) == {1, 2, 3}


@pytest.mark.parametrize("shift", range(6))
def test_a_magic_across_two_reads(root: Path, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    """What is behind a damaged part is found wherever the pieces that are read end."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    good = segment(root).read_bytes()
    segment(root).write_bytes(b"x" * (16 + shift) + good)
    monkeypatch.setattr("common.packed.READ_BYTES", 20)
    assert readable(root) == {1}
    assert PackedReader(root / "7").damage() == [
        f"The bytes 0 to {15 + shift} of {segment(root)} are damaged, or were not written to their end."
    ]


def test_a_block_that_another_machine_sees_late(root: Path) -> None:
    """A reader that saw the end of what was being written before its beginning finds all of it in the end."""
    outputs.prepare(root, SPEC)
    append(root, "a", *SLICES)
    good, ends = segment(root).read_bytes(), block_ends(segment(root))
    segment(root).write_bytes(good[: ends[0]] + bytes(ends[1] - ends[0]) + good[ends[1] :])
    reader = PackedReader(root / "7")
    assert readable(root, reader) == {1, 2, 5, 20, 21, 3}
    segment(root).write_bytes(good)
    os.utime(segment(root), ns=(1, 1))
    assert readable(root, reader) == {1, 2, 5, 9, 20, 21, 3}


def test_damage_behind_a_writer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a forked child wrote has rotted when its slot looks: the slot cuts nothing off and goes on elsewhere."""
    outputs.prepare(root, SPEC)
    monkeypatch.setattr(packed_writer, "FLUSH_BYTES", 1)
    with PackedWriter(root, SPEC, "a", "none") as slot, PackedWriter(root, SPEC, "b", "none") as child:
        for index in (1, 2, 3):
            child.write(index, data_of(index))
        child.sync()
        written = bytearray(segment(root, "b").read_bytes())
        written[0] ^= 1
        segment(root).write_bytes(written)
        segment(root, "b").unlink()
        slot.refresh()
        slot.write(4, data_of(4))
        with pytest.raises(OSError, match="open another"):
            slot.sync()
        assert segment(root).read_bytes() == written
    append(root, "a", [4])
    assert readable(root) == {2, 3, 4}


def test_a_segment_that_is_shorter_than_its_index_says(root: Path) -> None:
    """The slot goes on in another: were it to grow again, the index would tell of the bytes of other jobs."""
    outputs.prepare(root, SPEC)
    append(root, "a", *SLICES)
    ends = block_ends(segment(root))
    write_index(root / "7", JOBS)
    os.truncate(segment(root), ends[0])
    append(root, "a", *([job] for job in range(40, 56)))
    assert readable(root) == {1, 2, 5, *range(40, 56)}
    assert names(root) == ["segment-a.1.bin", "segment-a.bin"]
    write_index(root / "7", JOBS)
    append(root, "a", [56])
    assert names(root) == ["segment-a.1.bin", "segment-a.bin"]
    assert readable(root) == {1, 2, 5, *range(40, 57)}
