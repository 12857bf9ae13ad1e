"""Job numbers as people write them: exactly the jobs that were meant, or an error that names the field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidInput
from common.indices import MOST_SPANS, parse_id, parse_spans

JOBS = 200


def numbers(spans: list[tuple[int, int]]) -> set[int]:
    """The jobs of spans."""
    return {index for low, high in spans for index in range(low, high + 1)}


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, set[int]]:
    """A part of a text and the jobs that it means."""
    low = draw(st.integers(1, JOBS))
    kind = draw(st.sampled_from(["one", "span", "step"]))
    if kind == "one":
        return f"{low}", {low}
    high, step = draw(st.integers(low, JOBS)), draw(st.integers(1, JOBS))
    text = f"{low}-{high}" if kind == "span" else f"{low}-{high}:{step}"
    return text, set(range(low, high + 1, step if kind == "step" else 1))


@given(st.lists(parts(), min_size=1, max_size=8), st.sampled_from([",", ", ", " ,"]))
def test_any_list_of_spans(given_parts: list[tuple[str, set[int]]], comma: str) -> None:
    """The spans cover what a set says, with blanks around commas or none, and each lies within the batch."""
    text = comma.join(text for text, _ in given_parts)
    found = parse_spans(text, JOBS)
    assert numbers(found) == set().union(*(meant for _, meant in given_parts))
    assert all(1 <= low <= high <= JOBS for low, high in found)


@given(st.text(alphabet="0123456789-:,_ x[]٣²\n", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is raised than our error, and what is read is within the batch."""
    try:
        found = parse_spans(text, JOBS)
    except InvalidInput:
        return
    assert found
    assert numbers(found) <= set(range(1, JOBS + 1))


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("42", [(42, 42)]),
        ("1-9", [(1, 9)]),
        ("1_000-1_999", [(1000, 1999)]),
        ("1-9:4", [(1, 1), (5, 5), (9, 9)]),
        ("1-9:1", [(1, 9)]),
        (" 3 , 5-6 ", [(3, 3), (5, 6)]),
        ("7,7", [(7, 7), (7, 7)]),
        ("007", [(7, 7)]),
    ],
)
def test_good(text: str, spans: list[tuple[int, int]]) -> None:
    """As Slurm users write them."""
    assert parse_spans(text, 10_000) == spans


BAD = [
    "", " ", ",", "1,", ",1", "1,,2", "x", "1-", "-1", "1--2", "1-2-3", "5-1", "0", "0-5", "1-11", "11", "1-3:0",
    "1-3:", "1:2", "1-3:2:2", "1 2", "1 - 2x", "1_", "_1", "1__0", "1-5_", "1-5:2_", "+1", "1.0", "1e3", "٣", "²",
    "[1-3]", "7_[1]", "1-999999999999", "9" * 13, "9" * 5000, "1\n,x", "1;2",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    """The error names the field and the part that is wrong, and is one line."""
    with pytest.raises(InvalidInput) as caught:
        parse_spans(text, 10)
    assert caught.value.field == "jobs"
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


def test_blanks_do_not_join_numbers() -> None:
    """'1 2' is not twelve: nobody means to cancel that job."""
    with pytest.raises(InvalidInput):
        parse_spans("1 2", 100)


@pytest.mark.parametrize("text", ["1-100_000_000:2", "1-20_001:2", ",".join(["1"] * (MOST_SPANS + 1))])
def test_too_many_spans(text: str) -> None:
    """More than is sensible is refused before it is made."""
    with pytest.raises(InvalidInput, match="more than 10_000 spans") as caught:
        parse_spans(text, 100_000_000)
    assert caught.value.field == "jobs"


def test_as_many_spans_as_there_may_be() -> None:
    """The limit itself is taken, and any number of jobs in one span."""
    assert len(parse_spans("1-20_000:2", 100_000_000)) == MOST_SPANS
    assert parse_spans("1-100_000_000", 100_000_000) == [(1, 100_000_000)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7", (7, "")),
        ("7_42", (7, "42")),
        ("7_[1-9,20]", (7, "1-9,20")),
        (" 7_[1-90:10] ", (7, "1-90:10")),
        ("999999999999", (999_999_999_999, "")),
    ],
)
def test_id(text: str, found: tuple[int, str]) -> None:
    """A batch and its jobs."""
    assert parse_id(text) == found


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_every_id_that_is_shown_is_read(batch: int, job: int) -> None:
    """What the system calls a job can be typed back."""
    assert parse_id(f"{batch}_{job}") == (batch, f"{job}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "07",
        "-7",
        "x",
        "7_",
        "7_[]",
        "7_[1",
        "7_1]",
        "7_[1]]",
        "7_1-9",
        "7 42",
        "7_4_2",
        "٣",
        "1" * 13,
        "7_[1]x",
    ],
)
def test_bad_id(text: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidInput) as caught:
        parse_id(text)
    assert caught.value.field == "id"
