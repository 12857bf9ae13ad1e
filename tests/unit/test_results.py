"""A batch's CSVs in either output mode."""

import math
from pathlib import Path

import numpy as np
import pytest

from common import outputs, results
from common.batch import BatchSpec
from common.errors import InvalidInput
from common.job_writer import JobWriter
from common.packed_writer import PackedWriter
from common.rows import read_rows

ROW = b'numbers,sum,mean\r\n"[33, 14]",47,23.5\r\n'


def spec_of(mode: str) -> BatchSpec:
    return BatchSpec(7, 100, 42, output_mode=mode)


def written(root: Path, mode: str, *indices: int) -> Path:
    """A batch of that mode in which these jobs have a CSV; returns its directory."""
    spec = spec_of(mode)
    outputs.prepare(root, spec)
    with results.writer(root, spec, "w-0", "slice") as writer:
        for index in indices:
            writer.write(index, ROW * index)
        writer.sync()
    return root / "7"


def test_mode_chooses_the_writer(root: Path) -> None:
    """A file each, unless the batch says packed; a mode that is not known is refused."""
    for spec, kind in (
        (BatchSpec(7, 9, 1), JobWriter),
        (spec_of("files"), JobWriter),
        (spec_of("packed"), PackedWriter),
    ):
        outputs.prepare(root, spec)
        with results.writer(root, spec, "w-0", "none") as writer:
            assert isinstance(writer, kind)
    for ask in (
        lambda: results.writer(root, spec_of("zip"), "w", "none"),
        lambda: results.open_store(root, spec_of("")),
    ):
        with pytest.raises(InvalidInput) as caught:
            ask()
        assert caught.value.field == "output_mode"


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_stores_say_the_same(root: Path, mode: str) -> None:
    """Both modes give a job's bytes, None where there is none, and which jobs there are."""
    place = written(root, mode, 2, 3, 100)
    store = results.open_store(place, spec_of(mode))
    assert {i: store.read(i) for i in (-1, 0, 1, 2, 3, 100, 101)} == {
        -1: None, 0: None, 1: None, 2: ROW * 2, 3: ROW * 3, 100: ROW * 100, 101: None,
    }  # fmt: skip
    for jobs in (0, 2, 50, 100, 200):
        present = store.present(jobs)
        assert present.dtype == bool
        assert len(present) == jobs
        assert np.flatnonzero(present).tolist() == [i - 1 for i in (2, 3, 100) if i <= jobs]


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_store_of_a_batch_that_is_gone(root: Path, mode: str) -> None:
    """No directory: no jobs."""
    store = results.open_store(root / "9", spec_of(mode))
    assert store.read(1) is None
    assert not store.present(3).any()


def test_file_store_follows_no_link(root: Path) -> None:
    """A link is not read, and a directory is no CSV."""
    place = written(root, "files")
    (root / "secret").write_text("secret")
    (place / "job_1.csv").symlink_to(root / "secret")
    (place / "job_2.csv").mkdir()
    store = results.open_store(place, spec_of("files"))
    assert (store.read(1), store.read(2)) == (None, None)


def test_parse_reads_as_read_rows(tmp_path: Path) -> None:
    """The last row, with numbers and lists read as such."""
    (tmp_path / "x.csv").write_bytes(ROW)
    assert results.parse(ROW) == next(read_rows(tmp_path / "x.csv")) == {"numbers": [33, 14], "sum": 47, "mean": 23.5}
    assert results.parse(b"a\r\n1\r\n2\r\n") == {"a": 2}


def test_parse_keeps_text() -> None:
    """What is no number is text, and a number that is none is that."""
    assert results.parse(b"a,b,c\r\nx,-inf,True\r\n") == {"a": "x", "b": -math.inf, "c": True}
    found = results.parse(b"a\r\nnan\r\n")
    assert found is not None
    assert math.isnan(found["a"])


@pytest.mark.parametrize("cut", range(len(ROW)))
def test_parse_refuses_what_was_cut_short(cut: int) -> None:
    """However much is missing."""
    assert results.parse(ROW[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\r\n1\r\n",
        b"a\r\n1,2\r\n",
        b"a\r\n\xff\r\n",
        b'a\r\n"1\r\n',
        b"a\r\n" + b"[" * 99_999 + b"\r\n",
        b"\r\n",
        b"a\r\n" + b"1" * 200_000 + b"\r\n",
    ],
)
def test_parse_refuses_what_is_no_row(data: bytes) -> None:
    """Too few or too many fields, no text, an open quote, too deep or too long."""
    assert results.parse(data) is None


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_export_writes_every_job(root: Path, tmp_path: Path, mode: str) -> None:
    """As files, into a new directory or an empty one, and nothing else."""
    place = written(root, mode, 1, 7, 100)
    for target in (tmp_path / "a" / "new", tmp_path / "empty"):
        if target.name == "empty":
            target.mkdir()
        assert results.export(place, spec_of(mode), target) == 3
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {
            f"job_{index}.csv": ROW * index for index in (1, 7, 100)
        }


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_export_overwrites_nothing(root: Path, tmp_path: Path, mode: str) -> None:
    """A directory with anything in it, or a file, is refused and stays as it is."""
    place = written(root, mode, 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    for target in (tmp_path / "full", tmp_path / "full" / ".hidden", tmp_path / "full" / ".hidden" / "below", place):
        with pytest.raises(InvalidInput) as caught:
            results.export(place, spec_of(mode), target)
        assert caught.value.field == "target"
    assert [path.name for path in (tmp_path / "full").iterdir()] == [".hidden"]
    assert (tmp_path / "full" / ".hidden").read_text() == "mine"
