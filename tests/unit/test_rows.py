"""The job's row and its bytes."""

import csv
import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from common.rows import RowFormat, read_rows
from common.seeds import Streams
from common.simulations.random_numbers import random_numbers
from tests.support import expected_csv

GOLDEN = {
    1: b'numbers,sum,mean\r\n"[33, 14, 72, 87, 66, 40, 77, 55, 42, 66]",552,55.2\r\n',
    2: b'numbers,sum,mean\r\n"[14, 4, 37, 24, 51, 25, 41, 85, 66, 93]",440,44.0\r\n',
    3: b'numbers,sum,mean\r\n"[22, 49, 88, 46, 69, 75, 56, 78, 73, 52]",608,60.8\r\n',
}

CELLS = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=8), st.lists(st.integers(), max_size=3))


def test_golden_bytes() -> None:
    """Seed 42 gives these bytes for ever: on every machine, and after every change of ours or NumPy's."""
    streams, form = Streams(42), RowFormat(["numbers", "sum", "mean"])
    made = {index: form(random_numbers(streams.generator(index)).values()) for index in GOLDEN}
    assert made == GOLDEN
    assert {index: expected_csv(42, index) for index in GOLDEN} == GOLDEN


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**8))
def test_result_keeps_the_originals_form(seed: int, index: int) -> None:
    """Ten integers from 1 to 100, their sum and their mean, as plain Python numbers."""
    result = random_numbers(Streams(seed).generator(index))
    numbers = result["numbers"]
    assert len(numbers) == 10
    assert all(type(n) is int and 1 <= n <= 100 for n in numbers)
    assert result == {"numbers": numbers, "sum": sum(numbers), "mean": sum(numbers) / 10}


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=4), st.lists(st.lists(CELLS, min_size=1), min_size=1, max_size=4)
)
def test_row_format_is_the_csv_modules(columns: list[str], rows: list[list[object]]) -> None:
    """Byte for byte what csv writes, for every row of a reused formatter."""
    form = RowFormat(columns)
    for row in rows:
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([columns, row])
        assert form(row) == buffer.getvalue().encode()


def test_read_rows_gives_numbers(tmp_path: Path) -> None:
    """A job's file reads back as numbers and lists."""
    (tmp_path / "job_1.csv").write_bytes(GOLDEN[1])
    numbers = [33, 14, 72, 87, 66, 40, 77, 55, 42, 66]
    assert list(read_rows(tmp_path / "job_1.csv")) == [{"numbers": numbers, "sum": 552, "mean": 55.2}]
