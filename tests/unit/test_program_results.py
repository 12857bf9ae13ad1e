"""What becomes a program's result: its last line, or the CSV that it wrote, and what does not."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import results
from common.programs.failure import ProgramFailed
from common.programs.result import NOTHING_SAID, Results, last_line
from tests.unit.programs_support import jobs_of

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5)
TEXTS = st.lists(st.sampled_from(["nan", "-inf", '"', "\\", " ", ":", "{"]), max_size=6).map("".join)
NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False))


@pytest.mark.parametrize(
    ("line", "csv", "outputs"),
    [
        ('{"x": 1.5}', "x\r\n1.5\r\n", (1.5,)),
        ('{"y": "a,b", "x": 2, "z": [1, 2]}', 'y,x,z\r\n"a,b",2,"[1, 2]"\r\n', (2.0,)),
        ('[{"x": 1}, {"x": 3}]', "x\r\n1\r\n3\r\n", (3.0,)),
        ("4", "x\r\n4\r\n", (4.0,)),
        ("-Infinity", "x\r\n-inf\r\n", (-math.inf,)),
        ('{"x": 1e999}', "x\r\ninf\r\n", (math.inf,)),
        ('{"x": true}', "x\r\nTrue\r\n", (1.0,)),
        ('{"x": 0.1, "deep": {"a": null}}', 'x,deep\r\n0.1,"{""a"": null}"\r\n', (0.1,)),
    ],
)
def test_the_last_line_is_the_result(line: str, csv: str, outputs: tuple[float, ...]) -> None:
    """JSON that it prints last becomes the CSV, and the declared outputs its numbers."""
    assert Results(["x"]).of_line(line.encode()) == (csv.encode(), outputs)


def test_nan_is_a_number() -> None:
    """It is kept as it is."""
    data, outputs = jobs_of(["/bin/echo", '{{"x": NaN}}']).result(1)
    assert data == b"x\r\nnan\r\n"
    assert math.isnan(outputs[0])


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *((f"{sign}{word}", "nan") for sign in ("", "-", "+") for word in ("nan", "NAN", "NaN", "nan(0x8)", "NAN()")),
        *((word, "inf") for word in ("inf", "INF", "Inf", "+inf", "infinity", "INFINITY", "+Infinity")),
        *((word, "-inf") for word in ("-inf", "-INF", "-Inf", "-infinity")),
    ],
)
def test_numbers_that_are_not_finite_are_read_as_c_writes_them(written: str, read: str) -> None:
    """In objects, in rows and alone; also when nothing was declared."""
    found = Results(["x"]).of_line(f'{{"n": 1, "x": {written}}}'.encode())
    assert found is not None
    assert found[0].decode() == f"n,x\r\n1,{read}\r\n"
    assert str(found[1][0]) == read
    assert (Results([]).of_line(f'[{{"x": 1}},{{"x":{written}}}]'.encode()) or [b""])[
        0
    ].decode() == f"x\r\n1\r\n{read}\r\n"
    assert (Results(["x"]).of_line(written.encode()) or [b""])[0].decode() == f"x\r\n{read}\r\n"


@given(st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=3))
def test_texts_are_not_taken_for_numbers(texts: dict[str, str]) -> None:
    """Whatever stands in quotes stays, with quotes and backslashes of its own."""
    plain = json.dumps({**texts, "x": 0.5})
    found = Results(["x"]).of_line(plain.replace('"x": 0.5', '"x": -inf').encode())
    wanted = Results(["x"]).of_line(json.dumps({**texts, "x": -math.inf}).encode())
    assert found == wanted
    assert found is not None


@pytest.mark.parametrize(
    "line", ['{"x": 1nan}', '{"x": nano}', '{"x": nan_}', '{"x": --inf}', "info", "no", '{"x": "nan}', "inf inf"]
)
def test_what_only_looks_like_one_is_no_number(line: str) -> None:
    """It is no JSON then either."""
    assert Results([]).of_line(line.encode()) is None


def test_a_line_of_quotes_takes_no_time() -> None:
    """Each character is looked at once."""
    before = time.process_time()
    for line in ('{"' + '\\"' * 500_000, "{" + '"' * 999_999, "{" + "-nan(" * 200_000, "nan" * 300_000):
        assert Results([]).of_line(line.encode()) is None
    assert time.process_time() - before < 2


def test_a_program_that_prints_nan_completes() -> None:
    """As awk, and the shell's printf, write it."""
    data, outputs = jobs_of('printf \'{"x": %f, "y": %f}\\n\' -inf nan').result(1)
    assert data == b"x,y\r\n-inf,nan\r\n"
    assert outputs == (-math.inf,)


LONG = "head -c 1100000 /dev/zero | tr '\\0' '.'; echo; "


def test_a_last_line_of_which_the_beginning_is_gone() -> None:
    """It is told, and no piece of it is taken for a result; where nothing was declared nothing is asked for."""
    line = LONG + "printf '{\"a\": \"'; head -c 140000 /dev/zero | tr '\\0' 1; printf '\", \"x\": 1}\\n\\n'"
    with pytest.raises(ProgramFailed, match=r"last line is longer than the 64 KiB .* 1 MiB.*JOB_RESULT") as caught:
        jobs_of(line).result(1)
    assert "111" not in str(caught.value)
    with pytest.raises(ProgramFailed, match="longer than the 64 KiB"):
        jobs_of("head -c 1300000 /dev/zero | tr '\\0' 1").result(1)
    assert jobs_of(line, outputs=()).result(1) == (NOTHING_SAID, ())
    assert Results([]).of_line(b'{"x": 1}', cut=True) is None
    assert jobs_of(LONG * 2 + "echo 5").result(1)[1] == (5.0,)
    assert jobs_of("printf '{\"a\": \"'; head -c 900000 /dev/zero | tr '\\0' 1; printf '\", \"x\": 1}'").result(1)[
        1
    ] == (1.0,)


@given(st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=4))
def test_what_is_printed_is_what_is_read(row: dict[str, float]) -> None:
    """Whatever the names: the CSV gives every number back exactly."""
    found = Results(list(row)).of_line(json.dumps(row).encode())
    assert found is not None
    assert found[1] == tuple(float(value) for value in row.values())
    assert list((results.parse(found[0]) or {}).values()) == list(row.values())


@pytest.mark.parametrize(
    "line", ["", "done", "[1, 2]", "[]", "{}", "5", '"x"', "null", "[[1]]", "{" * 99_999, "9" * 5000]
)
def test_without_declared_outputs_nothing_need_be_said(line: str) -> None:
    """What is no object is no result, and the exit code is all there is."""
    assert Results([]).of_line(line.encode()) is None


def test_a_program_that_says_nothing_completes() -> None:
    """Its CSV has its exit code, if no output is declared."""
    assert jobs_of("echo hello", outputs=()).result(1) == (NOTHING_SAID, ())
    assert results.parse(NOTHING_SAID) == {"exit_code": 0}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "It printed nothing"),
        ("all went well", "'all went well'"),
        ("[1, 2]", "'[1, 2]'"),
        ('{"y": 1}', "x must be numbers"),
        ('{"x": "high"}', "x must be numbers"),
        ('{"x": null}', "x must be numbers"),
        ('{"x": "21"}', "x must be numbers"),
        ('{"x": 28, "x": 29}', "'x' twice"),
        ("{" + ", ".join(f'"{i}": 1' for i in range(100_000)) + ', "7": 1}', "'7' twice"),
        ('{"x": 28, "in": [{"y": NaN, "y": nan}]}', "'y' twice"),
        ('{"x": ' + "9" * 400 + "}", "x must be numbers"),
        ('[{"x": 1}, {"y": 1}]', "different columns"),
        ("true", "'true'"),
        ("\ufffd" * 500, "no result"),
    ],
)
def test_what_is_missing_is_said(line: str, text: str) -> None:
    """The text says what is expected and shows what there was, in short."""
    with pytest.raises(ProgramFailed, match=r"result|columns") as caught:
        Results(["x"]).of_line(line.encode())
    assert text in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_a_number_alone_is_for_one_output() -> None:
    """With two nobody knows which it is."""
    with pytest.raises(ProgramFailed, match="x, y must be numbers"):
        Results(["x", "y"]).of_line(b"5")


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        (b"a\nb\n", b"b"),
        (b"a\nb", b"b"),
        (b'hello\n{"x": 1}\n\n  \r\n', b'{"x": 1}'),
        (b'{"x": 1}\r\n', b'{"x": 1}'),
        (b"\n\n", b""),
        (b"", b""),
    ],
)
def test_the_last_line_is_the_last_that_is_not_empty(printed: bytes, line: bytes) -> None:
    """Blank lines after it do not count."""
    assert last_line(printed) == line


@pytest.mark.parametrize(
    ("data", "csv", "outputs"),
    [
        (b"a,x\n1,2\n3,4\n", b"a,x\n1,2\n3,4\n", (4.0,)),
        (b"a,x\r\n1,2\r\n", b"a,x\r\n1,2\r\n", (2.0,)),
        (b"x\n1", b"x\n1\n", (1.0,)),
        (b'x,t\n1e3,"a\nb"\n\n', b'x,t\n1e3,"a\nb"\n\n', (1000.0,)),
        (b"x\nnan\n", b"x\nnan\n", (math.nan,)),
        (b"\xef\xbb\xbfx\n-1.5e-3\n", b"\xef\xbb\xbfx\n-1.5e-3\n", (-0.0015,)),
    ],
)
def test_a_csv_is_taken_as_it_is(data: bytes, csv: bytes, outputs: tuple[float, ...]) -> None:
    """Byte for byte; and everything else that reads a job's CSV reads it too."""
    found = Results(["x"]).of_file(data)
    assert found[0] == csv
    assert found[1] == pytest.approx(outputs, nan_ok=True)
    assert float((results.parse(found[0]) or {})["x"]) == pytest.approx(outputs[0], nan_ok=True)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no row"),
        (b"x\n", "no row"),
        (b"\xff\n1\n", "no CSV"),
        (b'x\n"1\n', "no CSV"),
        (b"x,y\n1\n", "1 in row 2"),
        (b"x\n1,2\n3\n", "2 in row 2"),
        (b"x,x\n1,2\n", "twice"),
        (b"y\n1\n", "x must be numbers"),
        (b"x\nhigh\n", "'high'"),
        (b"x\n1_0\n", "'1_0'"),
        ("x\n\uff11\n".encode(), "x must be numbers"),
        (b"y, x\n1,2\n", "has the columns 'y', ' x'; the last row is '1,2'"),
    ],
)
def test_a_wrong_csv_is_a_failure(data: bytes, text: str) -> None:
    """And it says in what."""
    with pytest.raises(ProgramFailed, match=text):
        Results(["x"]).of_file(data)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("mkdir $JOB_RESULT", "no file"),
        ("ln -s /etc/passwd $JOB_RESULT", "cannot be read"),
        ("mkfifo $JOB_RESULT", "no file"),
        ("truncate -s 100M $JOB_RESULT", "64 MiB"),
        ("printf 'y\\n1\\n' > $JOB_RESULT; echo 5", "x must be numbers"),
    ],
)
def test_a_result_that_is_no_csv_file(line: str, text: str) -> None:
    """It does not fall back to what was printed: the program meant the file."""
    with pytest.raises(ProgramFailed, match=text):
        jobs_of(line).result(1)


def test_the_file_comes_before_the_line() -> None:
    """Both are there: the file counts."""
    assert jobs_of("printf 'x\\n8' > $JOB_RESULT; echo 5").result(1) == (b"x\n8\n", (8.0,))
