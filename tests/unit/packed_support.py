"""What the tests of packed outputs share: jobs whose CSVs are known, segments, a disk that is full."""

import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from common import outputs, packed
from common.batch import BatchSpec
from common.packed_index import PackedReader
from common.packed_writer import PackedWriter

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


def flip(path: Path, position: int) -> None:
    """Let one bit of a file rot."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x04
    path.write_bytes(content)


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """A disk on which no file can grow beyond ``left`` bytes: it takes a part of a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
