"""The job table's records: one layout for packing, storing and reading."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.ledger import keys
from common.ledger.table import SEGMENT_JOBS, pieces, read, record_dtype, record_packer
from tests.support import OUTPUTS

VALUES = st.tuples(
    st.integers(0, 255), st.integers(0, 255), st.integers(-(2**15), 2**15 - 1), st.integers(0, 2**16 - 1),
    st.integers(0, 255), st.integers(0, 255), st.floats(allow_nan=False), st.floats(width=32, allow_nan=False),
    st.floats(width=32, allow_nan=False), st.integers(0, 2**32 - 1), st.floats(allow_nan=False), st.floats(),
)  # fmt: skip


class Strings:
    """A stand-in for Redis that knows GETRANGE."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self.values = values

    def command(self, word: str, key: str, start: int, end: int) -> bytes:
        """As Redis does: what is there, both ends included."""
        assert word == "GETRANGE"
        return self.values.get(key, b"")[start : end + 1]


@given(VALUES)
def test_packer_equals_dtype(values: tuple[float, ...]) -> None:
    """What the packer writes is what the dtype reads, field by field."""
    packed = record_packer(OUTPUTS).pack(*values)
    dtype = record_dtype(OUTPUTS)
    assert len(packed) == dtype.itemsize
    record = np.frombuffer(packed, dtype)[0]
    assert [repr(float(value)) for value in record.item()] == [repr(float(value)) for value in values]


def test_layout_never_changes() -> None:
    """Tables that are stored must stay readable: the offset of each field is fixed."""
    fields = record_dtype(OUTPUTS).fields
    assert fields is not None
    assert {name: place[1] for name, place in fields.items()} == {
        "state": 0, "attempt": 1, "exit": 2, "slot": 4, "signal": 6, "reason": 7, "started": 8, "elapsed": 16,
        "cpu": 20, "max_rss": 24, "out:sum": 28, "out:mean": 36,
    }  # fmt: skip


NEAR_BORDER = st.builds(lambda s, d: max(1, s * SEGMENT_JOBS + d), st.integers(0, 400), st.integers(-9, 9))


@given(NEAR_BORDER, st.integers(0, 20), st.integers(1, 5))
def test_pieces_cut_at_segment_borders(first: int, count: int, size: int) -> None:
    """Put together at their places, the pieces are the records; none crosses a border, none is empty."""
    records = bytes(index % 251 for index in range(count * size))
    position, joined = first - 1, b""
    for segment, offset, piece in pieces(first, records, size):
        assert (segment, offset) == (position // SEGMENT_JOBS, position % SEGMENT_JOBS * size)
        assert 0 < len(piece) <= SEGMENT_JOBS * size - offset
        position += len(piece) // size
        joined += bytes(piece)
    assert joined == records


def test_pieces_of_more_than_two_segments() -> None:
    """A slice may span a whole segment."""
    records = bytes(SEGMENT_JOBS + 2)
    assert [(s, o, len(p)) for s, o, p in pieces(SEGMENT_JOBS, records, 1)] == [
        (0, SEGMENT_JOBS - 1, 1),
        (1, 0, SEGMENT_JOBS),
        (2, 0, 1),
    ]


@given(NEAR_BORDER, st.integers(1, 20))
def test_read_is_the_inverse_of_pieces(first: int, count: int) -> None:
    """What was written is read back; what was not is zero, so PENDING, before, behind and between."""
    dtype = record_dtype(())
    rows = np.zeros(count, dtype)
    rows["state"], rows["started"] = 2, np.arange(first, first + count)
    stored: dict[str, bytes] = {}
    for segment, offset, piece in pieces(first, rows.tobytes(), dtype.itemsize):
        stored[keys.table(1, segment)] = bytes(offset) + bytes(piece)
    start = max(1, first - 3)
    found = read(Strings(stored), 1, start, count + 6, dtype)  # type: ignore[arg-type]
    inside = (np.arange(start, start + count + 6) >= first) & (np.arange(start, start + count + 6) < first + count)
    assert len(found) == count + 6
    assert (found["state"] == np.where(inside, 2, 0)).all()
    assert (found["started"][inside] == rows["started"]).all()
