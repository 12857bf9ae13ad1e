"""Slurm's array indices in closed form: the same as writing all of them out, and ten million cost nothing."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidInput
from common.programs.array import MOST_PARTS, ArrayIndices
from common.settings import MAX_JOBS

SPANS = st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(1, 7))


def naive(spans: list[tuple[int, int, int]]) -> list[int]:
    """Every index, one by one."""
    return [index for first, length, step in spans for index in range(first, first + length + 1, step)]


@given(st.lists(SPANS, min_size=1, max_size=5))
def test_as_if_written_out(spans: list[tuple[int, int, int]]) -> None:
    text = ",".join(f"{first}-{first + length}:{step}" for first, length, step in spans)
    wanted = naive(spans)
    if len(set(wanted)) < len(wanted):
        with pytest.raises(InvalidInput, match=r"is there twice") as refused:
            ArrayIndices.parse(text)
        twice = int(refused.value.message.split()[2])
        assert wanted.count(twice) > 1
        return
    found = ArrayIndices.parse(text)
    assert [found.at(job) for job in range(1, found.count + 1)] == wanted
    assert (found.count, found.minimum, found.maximum) == (len(wanted), min(wanted), max(wanted))
    assert ArrayIndices.parse(found.text) == ArrayIndices(found.parts)
    for outside in (0, -1, found.count + 1):
        with pytest.raises(IndexError):
            found.at(outside)


@pytest.mark.parametrize(
    ("text", "indices", "throttle"),
    [
        ("1-10:2,15,20-25%4", [1, 3, 5, 7, 9, 15, 20, 21, 22, 23, 24, 25], 4),
        ("0", [0], 0),
        ("0-15:4", [0, 4, 8, 12], 0),
        ("5,1-3", [5, 1, 2, 3], 0),
        (" 1 - 3 , 7 % 2 ", [1, 2, 3, 7], 2),
        ("007", [7], 0),
    ],
)
def test_as_slurm_writes_them(text: str, indices: list[int], throttle: int) -> None:
    found = ArrayIndices.parse(text)
    assert [found.at(job) for job in range(1, found.count + 1)] == indices
    assert found.throttle == throttle


@pytest.mark.parametrize(
    "text",
    ["", ",", "1,", "x", "1-", "-1", "1-2-3", "1:2", "3-1", "1-9:0", "1%", "1%0", "1%x", "%4", "1%2%3", "1.5", "1 2",
     "1_000", "1,1", "1-9,5", "0-90:10,5-95:3", "0-999999999", "1%1000001", "9999999999", "\uff11"],
)  # fmt: skip
def test_wrong_ones_name_the_field(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^array: ") as refused:
        ArrayIndices.parse(text)
    assert refused.value.field == "array"


def test_most_jobs() -> None:
    assert ArrayIndices.parse(f"1-{MAX_JOBS}").count == MAX_JOBS
    with pytest.raises(InvalidInput, match="more than"):
        ArrayIndices.parse(f"0-{MAX_JOBS}")
    with pytest.raises(InvalidInput, match="parts"):
        ArrayIndices.parse(",".join(map(str, range(MOST_PARTS + 1))))


def test_ten_million_cost_nothing() -> None:
    begin = time.process_time()
    found = ArrayIndices.parse("0-19999998:2,1-19999999:2000000")
    assert (found.count, found.at(1), found.at(10_000_000), found.at(10_000_010)) == (10_000_010, 0, 19999998, 18000001)
    assert time.process_time() - begin < 0.5
