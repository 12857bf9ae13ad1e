"""What a slot has done of its slice, on the board: it survives the slot, and stays in the slot's own entry."""

import time
from pathlib import Path

import pytest

from services.worker.board import RECORD_BYTES, TEXT_BYTES, Board, Progress, SlotEntry


def test_records_survive_their_process(tmp_path: Path) -> None:
    """Whoever opens the file finds the records that were added, and at which job the slot was."""
    board = Board.create(tmp_path / "b", 3)
    board.write(1, 123, "token")
    recorder = board.recorder(1)
    recorder.begin(50, 4, 7, 2)
    recorder.limit(1.5, 1000)
    recorder.start(9.0)
    for now, record in ((10.0, b"aaaa"), (11.0, b"bbbb")):
        recorder.add(record, now)
    board.close()
    found = Board(tmp_path / "b", 3)
    assert found.read(1).token == "token"
    assert found.progress(1) == Progress(50, 4, 7, 2, 1.5, 1000, 2, 11.0, 0, 0, 0, 0.0)
    assert found.records(1) == b"aaaabbbb"
    for other in (0, 2):
        assert found.progress(other) == Progress(0, 0, 0, 0, 0.0, 0, 0, 0.0, 0, 0, 0, 0.0)
        assert found.records(other) == b""
    found.close()


def test_a_new_slice_forgets_the_one_before(tmp_path: Path) -> None:
    """Its records and progress begin anew; so does the whole entry with another range."""
    board = Board.create(tmp_path / "b", 1)
    recorder = board.recorder(0)
    recorder.begin(1, 2, 1, 0)
    recorder.add(b"xx", 1.0)
    recorder.begin(9, 2, 2, 1)
    assert (board.records(0), recorder.records(), board.progress(0).first) == (b"", b"", 9)
    recorder.add(b"yy", 1.0)
    assert board.records(0) == recorder.records() == b"yy"
    board.note_end(0, 4)
    board.write(0, 5, "next")
    assert board.progress(0) == Progress(0, 0, 0, 0, 0.0, 0, 0, 0.0, 0, 0, 0, 0.0)
    board.close()


def test_since_when_a_slot_is_at_a_job(tmp_path: Path) -> None:
    """A job begins where the one before it ends; before the first and after the last the slot is at none."""
    board = Board.create(tmp_path / "b", 1)
    recorder = board.recorder(0)
    recorder.begin(1, 2, 1, 0)
    assert (board.progress(0).since, board.progress(0).done) == (0.0, 0)
    recorder.start(5.0)
    assert (board.progress(0).since, board.progress(0).done) == (5.0, 0)
    recorder.add(b"xx", 6.0)
    assert (board.progress(0).since, board.progress(0).done) == (6.0, 1)
    recorder.stop()
    assert (board.progress(0).since, board.progress(0).done) == (0.0, 1)
    board.close()


def test_a_full_board_says_so_before_it_overflows(tmp_path: Path) -> None:
    """The last record fits, the next would lie in the neighbour's entry."""
    board = Board.create(tmp_path / "b", 2)
    board.write(1, 99, "neighbour")
    recorder = board.recorder(0)
    size = RECORD_BYTES // 3
    recorder.begin(1, size, 1, 0)
    for fill in (b"a", b"b", b"c"):
        assert not recorder.full
        recorder.add(fill * size, 1.0)
    assert recorder.full
    assert board.records(0) == b"a" * size + b"b" * size + b"c" * size
    assert (board.read(1).pid, board.read(1).token) == (99, "neighbour")
    assert board.progress(1).record_size == 0
    board.close()


@pytest.mark.parametrize(("state", "code"), [(4, -9), (5, 137), (0, -11), (0, 1)])
def test_how_a_slot_ended_is_noted_beside_what_it_did(tmp_path: Path, state: int, code: int) -> None:
    """By the main process, without touching the slot's own words."""
    board = Board.create(tmp_path / "b", 2)
    board.write(1, 7, "token")
    recorder = board.recorder(1)
    recorder.begin(3, 2, 1, 0)
    recorder.add(b"xx", 1.0)
    before = time.monotonic()
    board.note_end(1, state)
    assert board.progress(1).ended == 0.0
    board.note_exit(1, code)
    assert before <= board.progress(1).ended <= time.monotonic()
    assert (board.progress(1).ended_as, board.progress(1).exit_code) == (state, code)
    assert (board.progress(1).done, board.records(1), board.read(1).token) == (1, b"xx", "token")
    board.close()


def test_error_texts_survive_their_process(tmp_path: Path) -> None:
    """With the job that each is of; what does not fit is left out, and a new slice begins with none."""
    board = Board.create(tmp_path / "b", 2)
    recorder, other = board.recorder(0), board.recorder(1)
    assert board.failures(0) == {}
    recorder.begin(50, 4, 1, 0)
    recorder.fail(50, "ValueError: \u00fc")
    recorder.fail(2**40, "")
    recorder.add(b"aaaa", 1.0)
    assert board.failures(0) == {50: "ValueError: \u00fc", 2**40: ""}
    assert board.failures(1) == {}
    other.begin(1, 4, 1, 0)
    for job in range(1, 101):
        other.fail(job, "x" * (TEXT_BYTES // 50))
    kept = board.failures(1)
    assert list(kept) == list(range(1, len(kept) + 1))
    assert 45 < len(kept) < 51
    assert board.records(0) == b"aaaa"
    other.begin(1, 4, 1, 0)
    assert board.failures(1) == {}
    assert len(board.failures(0)) == 2


def test_which_job_a_slot_is_at(tmp_path: Path) -> None:
    """The first that is not over; none between slices."""
    board = Board.create(tmp_path / "b", 1)
    recorder = board.recorder(0)
    assert board.progress(0).job == 0
    recorder.begin(50, 4, 1, 0)
    assert board.progress(0).job == 0
    recorder.start(1.0)
    assert board.progress(0).job == 50
    recorder.add(b"aaaa", 2.0)
    assert board.progress(0).job == 51
    recorder.stop()
    assert board.progress(0).job == 0


@pytest.mark.parametrize(
    ("token", "held"), [("7-ab-1", True), ("", False), ("verify-x-1", False), ("storage-7", False), ("finish-7", False)]
)
def test_what_is_a_range(token: str, held: bool) -> None:
    """Only that has a lease which is to be renewed."""
    assert SlotEntry(0, 1, token).has_range is held
