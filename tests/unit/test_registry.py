"""Simulations of the user's own: found, read again when changed, and harmless when broken."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.batch import BatchSpec
from common.errors import InvalidInput
from common.simulations import registry
from common.simulations.declare import DeclarationError, simulation

GOOD = '''
from batchsim import simulation

@simulation(outputs={"x": float})
def mine(rng, *, scale: float = 1.0):
    """Mine."""
    return {"x": scale * rng.random()}
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``simulations/`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    found = tmp_path / "simulations"
    found.mkdir()
    return found


def test_built_in_ones_are_there(place: Path) -> None:
    found = registry.everything()
    assert list(found.found) == list(registry.BUILT_IN)
    assert found.broken == {}
    assert all(each.description for each in found.found.values())


def test_a_file_of_ones_own(place: Path) -> None:
    (place / "mine.py").write_text(GOOD)
    found = registry.find("mine")
    assert found.schema()["parameters"]["properties"]["scale"]["default"] == 1.0
    assert registry.capabilities() == [f"mine:{found.version}"]


def test_of_two_with_one_name_neither_is_run(place: Path) -> None:
    """Whoever names it is told where both are; the rest of the files works."""
    (place / "b.py").write_text(GOOD + GOOD.replace("mine", "yours"))
    (place / "a.py").write_text(GOOD + "# another version")
    with pytest.raises(InvalidInput, match=rf"it is in {place}/a\.py and in {place}/b\.py; rename") as refused:
        registry.find("mine")
    assert refused.value.field == "simulation"
    found = registry.everything()
    assert list(found.found) == [*registry.BUILT_IN, "yours"]
    ((key, reason),) = found.broken.items()
    assert (key, "also in" in reason) == (f"{place}/b.py [mine]", True)
    assert "what else is in this file can be used" in reason


def test_a_batch_that_was_submitted_before_finds_its_own_by_the_version(place: Path) -> None:
    """So a worker can offer them all."""
    (place / "b.py").write_text(GOOD)
    before = registry.find("mine")
    batch = BatchSpec(1, 1, 1, simulation="mine", version=before.version, outputs=("x",))
    (place / "a.py").write_text(GOOD + "# another version")
    (place / "c.py").write_text(GOOD.replace("def mine", "def random_walk"))
    assert registry.of(batch).origin == str(place / "b.py")
    offered = registry.capabilities()
    assert f"mine:{before.version}" in offered
    assert [each.partition(":")[0] for each in offered] == ["random_walk", "mine", "mine"]
    for name, version in (each.split(":") for each in offered):
        found = registry.of(BatchSpec(1, 1, 1, simulation=name, version=version, outputs=("x",)))
        assert (found.name, found.version) == (name, version)
    own = BatchSpec(1, 1, 1, simulation="random_walk")
    assert registry.of(own).origin == ""
    with pytest.raises(InvalidInput, match="the batch needs 0123"):
        registry.of(BatchSpec(1, 1, 1, simulation="mine", version="0123", outputs=("x",)))


def test_the_name_of_one_that_is_built_in(place: Path) -> None:
    """It is not the built-in one that runs instead, and no other is kept from running."""
    source = GOOD.replace("def mine", "def random_walk") + GOOD.replace("def mine", "def faulty") + GOOD
    (place / "c.py").write_text(source)
    for name in ("random_walk", "faulty"):
        with pytest.raises(InvalidInput, match=rf"it is built in and in {place}/c\.py"):
            registry.find(name)
    found = registry.everything()
    assert sorted(found.broken) == [f"{place}/c.py [faulty]", f"{place}/c.py [random_walk]"]
    assert found.found["mine"].origin == f"{place}/c.py"
    assert "percolation" in found.found


def test_one_name_twice_in_a_file(place: Path) -> None:
    """Two functions are two; a second name for one function is none."""
    (place / "a.py").write_text(GOOD + "again = mine\n")
    assert registry.find("mine").name == "mine"
    assert registry.everything().broken == {}
    other = GOOD.replace("outputs=", 'name="mine", outputs=').replace("def mine", "def other")
    (place / "a.py").write_text(GOOD + other)
    with pytest.raises(InvalidInput, match="stands for several"):
        registry.find("mine")
    assert "declared here twice" in registry.everything().broken[f"{place}/a.py [mine]"]


def test_the_same_file_in_two_directories_is_one(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    for directory in (place, other):
        (directory / "mine.py").write_text(GOOD)
    monkeypatch.setenv(registry.VARIABLE, str(other))
    assert registry.find("mine").origin == str(place / "mine.py")
    assert registry.everything().broken == {}


def test_a_second_directory(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "mine.py").write_text(GOOD)
    monkeypatch.setenv(registry.VARIABLE, str(other))
    assert registry.find("mine").origin == str(other / "mine.py")


def test_a_changed_file_is_another_version(place: Path) -> None:
    path = place / "mine.py"
    path.write_text(GOOD)
    before = registry.find("mine")
    path.write_text(GOOD.replace("scale * rng", "2 * scale * rng"))
    os.utime(path, ns=(1, 1))
    after = registry.find("mine")
    assert after.version != before.version
    assert before.function.__code__ is not after.function.__code__


@pytest.mark.parametrize(
    "source",
    [
        "import nothing_there",
        "raise SystemExit(3)",
        "def (",
        "from batchsim import simulation\n@simulation(outputs={})\ndef f(): 0",
    ],
)
def test_a_broken_file_takes_nothing_else_down(place: Path, source: str) -> None:
    (place / "mine.py").write_text(GOOD)
    (place / "bad.py").write_text(source)
    found = registry.everything()
    assert "mine" in found.found
    assert "Traceback" in found.broken[str(place / "bad.py")]
    with pytest.raises(InvalidInput, match=r"bad\.py") as refused:
        registry.find("theirs")
    assert refused.value.field == "simulation"


def test_a_parameter_that_json_cannot_say_is_told_at_once(place: Path) -> None:
    """Else everybody who asked what there is would get an error."""
    (place / "mine.py").write_text(GOOD)
    bad = GOOD.replace("def mine", "def bad").replace("*, scale", "*, law: Callable[[float], float] = abs, scale")
    (place / "bad.py").write_text("from collections.abc import Callable\n" + bad)
    found = registry.everything()
    assert "DeclarationError: bad: parameter law cannot be described" in found.broken[str(place / "bad.py")]
    assert [each.schema()["name"] for each in found.found.values()] == [*registry.BUILT_IN, "mine"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import numpy\n\ndef f(:\n", r"bad\.py:3 \(SyntaxError: invalid syntax\)"),
        ("x = 1\ny = (lambda:\n  1 / 0)()", r"bad\.py:3 \(ZeroDivisionError: division by zero\)"),
        ("import json\njson.loads('{')", r"bad\.py:2 \(json\.decoder\.JSONDecodeError: Expecting"),
        ("import helper", r"bad\.py:1 \(RuntimeError: no\)"),
        ("class Own(Exception):\n  pass\nraise Own('no')", r"bad\.py:3 \(Own: no\)"),
        (GOOD.replace("*, ", ""), r"bad\.py:4 \(mine: write a \* before scale: parameters are given by name\)"),
    ],
)
def test_who_names_what_is_not_there_is_told_where_files_are_broken(place: Path, source: str, told: str) -> None:
    """With the line of that file, wherever the error came from."""
    (place / "bad.py").write_text(source)
    (place / "helper.py").write_text("\n\nraise RuntimeError('no')" if "helper" in source else "")
    with pytest.raises(InvalidInput, match=told) as refused:
        registry.find("theirs")
    assert "\n" not in refused.value.message


def test_who_names_what_is_not_there_is_told_where_we_looked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each directory, whether it is there, how to name another, and what is called nearly so."""
    (place / "mine.py").write_text(GOOD)
    with pytest.raises(InvalidInput, match=r"Did you mean monte_carlo_pi\?") as refused:
        registry.find("monte_carl_pi")
    text = refused.value.message
    assert text.endswith(
        f"Looked for in {place}, and in simulations.toml there and in {tmp_path}; "
        "SIMULATIONS_DIR names another directory"
    )
    monkeypatch.setenv(registry.VARIABLE, "other")
    with pytest.raises(InvalidInput) as refused:
        registry.find("nothing like it")
    assert "Did you mean" not in refused.value.message
    assert f"Looked for in {place} and {tmp_path}/other (not there), and in simulations.toml" in refused.value.message


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path with an installed package ``theirs``, whose entry point is ``their_module:f``."""
    found = tmp_path / "site"
    (found / "theirs-1.0.dist-info").mkdir(parents=True)
    (found / "theirs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (found / "theirs-1.0.dist-info" / "entry_points.txt").write_text(f"[{registry.GROUP}]\nf = their_module:mine\n")
    monkeypatch.syspath_prepend(found)
    registry._from_packages.cache_clear()
    yield found
    registry._from_packages.cache_clear()
    sys.modules.pop("their_module", None)


def test_a_packages_simulation(place: Path, package: Path) -> None:
    (package / "their_module.py").write_text(GOOD)
    assert registry.find("mine").origin == "theirs: their_module:mine"


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "import nothing_there"])
def test_a_broken_package_takes_nothing_else_down(place: Path, package: Path, source: str) -> None:
    (package / "their_module.py").write_text(source)
    found = registry.everything()
    assert list(found.found) == list(registry.BUILT_IN)
    assert "Traceback" in found.broken["theirs: their_module:mine"]


def test_wrong_declarations_say_what_to_change() -> None:
    with pytest.raises(DeclarationError, match="float, int or bool"):
        simulation(outputs={"x": str})(lambda rng: {})
    with pytest.raises(DeclarationError, match="'state' is a column that every batch has"):
        simulation(outputs={"state": float}, name="f")(lambda rng: {})
    with pytest.raises(DeclarationError, match="random generator"):
        simulation(outputs={"x": float}, name="f")(dict)
    with pytest.raises(DeclarationError, match=r"write a \* before n"):
        simulation(outputs={"x": float}, name="f")(lambda rng, n: {})
