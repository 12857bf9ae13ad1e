"""The index of packed segments: it saves the scan, and is never trusted beyond what is there."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import outputs, packed
from common.errors import Conflict
from common.packed import lock_file
from common.packed_index import PackedReader, write_index
from tests.unit.packed_support import (
    JOBS,
    SPEC,
    append,
    data_of,
    put_into,
    readable,
    segment,
)


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

    monkeypatch.setattr("common.packed_catalog.blocks", counted)
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


@pytest.mark.parametrize("finished", [False, True])
def test_index_of_segments_that_were_cut(root: Path, finished: bool) -> None:
    """An index that speaks of bytes that are gone is not believed, also by a reader that had believed it."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1], [2])
    append(root, "b", [2])
    write_index(root / "7", JOBS)
    if finished:
        (root / "7" / outputs.SUMMARY_NAME).write_text("{}")
    reader = PackedReader(root / "7")
    assert readable(root, reader) == {1, 2}
    os.truncate(segment(root), segment(root).stat().st_size - 1)
    assert readable(root) == readable(root, reader) == {1, 2}
    segment(root, "b").unlink()
    assert readable(root) == readable(root, reader) == {1}


def test_a_finished_batch_is_not_scanned(root: Path) -> None:
    """What lies behind the index counts only until the batch is finished, and again when it runs again."""
    outputs.prepare(root, SPEC)
    append(root, "a", [1])
    write_index(root / "7", JOBS)
    append(root, "a", [2])
    append(root, "b", [3])
    reader, summary = PackedReader(root / "7"), root / "7" / outputs.SUMMARY_NAME
    for _ in range(2):
        assert readable(root, reader) == readable(root) == {1, 2, 3}
        summary.write_text("{}")
        assert readable(root, reader) == readable(root) == {1}
        summary.unlink()


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
