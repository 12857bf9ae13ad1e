"""Parameters and points on the command line: from options, CSV and JSON; what is doubtful is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchsim.sweeping import NAMES, read, untyped
from common.errors import InvalidInput
from common.simulations.described import Kinds
from common.spelling import Kind, Takes

IDLE: dict[str, Any] = {
    "param": (), "replications": None, "zip_axes": False, "from_csv": None, "from_json": None,
    "common_random_numbers": False,
}  # fmt: skip


def given(kinds: Kinds = untyped, **options: Any) -> dict[str, Any]:
    """The batch's fields with these options."""
    assert set(IDLE) == set(NAMES)
    return read(kinds, **{**IDLE, **options})


def points(path: Path, content: str, kind: Kind = Kind.ANY) -> list[dict[str, Any]]:
    """The points of a CSV file of which every column is of one kind."""
    path.write_text(content, encoding="utf-8")
    found: list[dict[str, Any]] = given(lambda _: Takes(kind), from_csv=path)["sweep"]["points"]
    return found


@pytest.mark.parametrize(
    ("kind", "content", "wanted"),
    [
        (Kind.ANY, "k,x\n1,0.5\n\n2, a \n", [{"k": 1, "x": 0.5}, {"k": 2, "x": "a"}]),
        (Kind.ANY, "\ufeff k ,x\r\n1,\r\n", [{"k": 1, "x": ""}]),
        (Kind.ANY, 'k\n"80,90"\n80:120:5\na:b:c\n', [{"k": "80,90"}, {"k": "80:120:5"}, {"k": "a:b:c"}]),
        (Kind.ANY, 'k\n"[1,2]"\n"""80"""\n', [{"k": [1, 2]}, {"k": "80"}]),
        (Kind.ANY, 'k\n"a\nb"\n', [{"k": "a\nb"}]),
        (Kind.TEXT, "k\n5\n1.10\n", [{"k": "5"}, {"k": "1.10"}]),
        (Kind.TYPED, "k\n1.10\n2\n", [{"k": 1.1}, {"k": 2}]),
        (Kind.TYPED, "k\n1.10\nx\n", [{"k": "1.10"}, {"k": "x"}]),
    ],
)
def test_a_cell_is_one_value(tmp_path: Path, kind: Kind, content: str, wanted: list[dict[str, Any]]) -> None:
    found = points(tmp_path / "p.csv", content, kind)
    assert json.dumps(found) == json.dumps(wanted)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("k,k\n1,2\n", "two columns are called k"),
        ("k, k\n1,2\n", "two columns are called k"),
        ("k,\n1,2\n", "column 2 has no name"),
        ("k,x\n1,2\n1\n", "line 3: has 1 values, and there are 2 names"),
        ("k,x\n1,2,3\n", "line 2: has 3 values, and there are 2 names"),
        ("k\n", "needs a line of parameters' names"),
        ("", "needs a line of parameters' names"),
        ('k\n"a"b\n', "line 2: "),
        ('k\n"a\n', "line 2: "),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as refused:
        points(tmp_path / "p.csv", content)
    assert refused.value.field == "from_csv"


def test_a_cell_that_cannot_be_read_names_the_parameter(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"p.csv: v: '1' is not JSON") as refused:
        points(tmp_path / "p.csv", "v\n1\n", Kind.LIST)
    assert refused.value.field == "v"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[{"k": 1, "k": 2}]', "'k' is there twice"),
        ('{"parameters": {"k": 1, "k": 2}, "sweep": {}}', "'k' is there twice"),
        ("[" * 100_000, "nested too deeply"),
        ("[{}", "Expecting"),
        ("[]", "a list of at least one object"),
        ('{"k": 1}', "a list of at least one object"),
    ],
)
def test_json_that_is_no_list_of_points(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(InvalidInput, match=told) as refused:
        given(from_json=tmp_path / "p.json")
    assert refused.value.field == "from_json"


@pytest.mark.parametrize(
    ("text", "told", "field"),
    [
        ("k=0:inf:1", "--param k: 0:inf:1: START:STOP:STEP must be three finite numbers", "k"),
        ("k=[1", "--param k: \\[1: what begins with \\[ is one value as JSON", "k"),
        ("k", "--param k: is not NAME=VALUES", "param"),
    ],
)
def test_what_cannot_be_read_names_the_option(text: str, told: str, field: str) -> None:
    with pytest.raises(InvalidInput, match=told) as refused:
        given(param=(text,))
    assert refused.value.field == field


def test_the_kind_of_each_parameter_decides() -> None:
    kinds = {"name": Kind.TEXT, "v": Kind.LIST}
    found = given(lambda name: Takes(kinds.get(name, Kind.ANY)), param=("name=5", "v=[1,2]", "k=5", "x=1,2"))
    assert found["parameters"] == {"name": "5", "v": [1, 2], "k": 5}
    assert found["sweep"]["axes"] == {"x": [1, 2]}
    assert given(param=('name="a,b"',)) == {"parameters": {"name": "a,b"}}


@pytest.mark.parametrize("kind", [Kind.NUMBER, Kind.TEXT, Kind.LIST, Kind.OBJECT, Kind.ANY])
def test_null_is_none_where_that_is_taken(tmp_path: Path, kind: Kind) -> None:
    """As an option, in a sweep and in a file; in quotes it is a text."""
    takes = Takes(kind, none=True)
    assert given(lambda _: takes, param=("a=null", 'b="null"')) == {"parameters": {"a": None, "b": "null"}}
    (tmp_path / "p.csv").write_text("a,b\nnull,[1]\n[2], null \n")
    found = given(lambda _: takes, from_csv=tmp_path / "p.csv")["sweep"]["points"]
    assert [found[0]["a"], found[1]["b"]] == [None, None]
    if kind not in (Kind.LIST, Kind.OBJECT):
        one = 1 if kind is not Kind.TEXT else "1"
        assert given(lambda _: takes, param=("a=null,1, null",))["sweep"]["axes"] == {"a": [None, one, None]}


@pytest.mark.parametrize("kind", [Kind.NUMBER, Kind.TEXT, Kind.ANY, Kind.TYPED])
def test_elsewhere_it_is_a_text(kind: Kind) -> None:
    assert given(lambda _: Takes(kind), param=("a=null",)) == {"parameters": {"a": "null"}}
