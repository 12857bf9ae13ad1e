"""Simulations of the user's own: found, read again when changed, and harmless when broken."""

import os
from pathlib import Path

import pytest

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


def test_what_another_of_its_name_hides_is_not_offered(place: Path) -> None:
    """A worker that offered it would be given its ranges, and could not run them."""
    (place / "b.py").write_text(GOOD)
    (place / "a.py").write_text(GOOD + "# another version")
    assert registry.capabilities() == [f"mine:{registry.find('mine').version}"]


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


def test_a_name_that_is_taken_is_reported(place: Path) -> None:
    (place / "a.py").write_text(GOOD)
    (place / "b.py").write_text(GOOD)
    (place / "c.py").write_text(GOOD.replace("def mine", "def random_numbers"))
    found = registry.everything()
    assert found.found["mine"].origin.endswith("a.py")
    assert "mine is there already" in found.broken[str(place / "b.py")]
    assert "built in" in found.broken[str(place / "c.py")]


def test_wrong_declarations_say_what_to_change() -> None:
    with pytest.raises(DeclarationError, match="float, int or bool"):
        simulation(outputs={"x": str})(lambda rng: {})
    with pytest.raises(DeclarationError, match="'state' is a column that every batch has"):
        simulation(outputs={"state": float}, name="f")(lambda rng: {})
    with pytest.raises(DeclarationError, match="random generator"):
        simulation(outputs={"x": float}, name="f")(dict)
    with pytest.raises(DeclarationError, match=r"write a \* before n"):
        simulation(outputs={"x": float}, name="f")(lambda rng, n: {})
