"""Modules beside a simulation's file: importable, part of its version, and harmful to nobody."""

import dataclasses
import os
import pickle
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from common.simulations import neighbours, registry

RNG = np.random.default_rng(0)
MODEL = """
from batchsim import simulation
{imports}

@simulation(outputs={{"x": float}})
def mine(rng):
    {late}
    return {{"x": {value}}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``simulations/`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    found = tmp_path / "simulations"
    found.mkdir()
    return found


def write(path: Path, imports: str = "", value: str = "value()", late: str = "pass") -> None:
    """A file with the simulation ``mine``."""
    path.write_text(MODEL.format(imports=imports, value=value, late=late))


def result(name: str = "mine") -> float:
    """What the simulation gives now."""
    return float(registry.find(name).function(RNG)["x"])


FORMS = [
    ("from helper import value", "value()", "pass"),
    ("from helper import *", "value()", "pass"),
    ("import helper", "helper.value()", "pass"),
    ("import os, helper as h, json", "h.value() + json.loads('0')", "pass"),
    ("import pack.part", "pack.part.value() + pack.zero", "pass"),
    ("import pack.part as p", "p.value()", "pass"),
    ("from pack import part", "part.value()", "pass"),
    ("from pack.part import value", "value()", "pass"),
    ("from pack import value", "value()", "pass"),
    ("", "value()", "from helper import value"),
    ("", "pack.part.value()", "import pack.part"),
    ("try:\n    import helper\nexcept ImportError:\n    helper = None", "helper.value()", "pass"),
    ("import importlib", "importlib.import_module('pack.part').value()", "pass"),
    ("import importlib\nhelper = importlib.import_module('helper')", "helper.value()", "pass"),
    ("from importlib import import_module", "import_module('helper').value()", "pass"),
    ("import importlib", "getattr(importlib.import_module('math'), 'floor')(7.5)", "pass"),
    ("import importlib", "importlib.import_module('.part', importlib.import_module('pack').__name__).value()", "pass"),
    ("from middle import value", "value()", "pass"),
    ("from middle import late", "late()", "pass"),
]


@pytest.mark.parametrize(("imports", "value", "late"), FORMS)
def test_every_form_of_import(place: Path, imports: str, value: str, late: str) -> None:
    """As Python has them, also inside of functions, of packages, and of modules that import one another."""
    (place / "helper.py").write_text("def value(): return 7.0\n")
    (place / "middle.py").write_text(
        "import helper\nvalue = helper.value\ndef late():\n    import pack\n    return pack.value()"
    )
    (place / "pack").mkdir()
    (place / "pack" / "__init__.py").write_text("from .part import value\nzero = 0\n")
    (place / "pack" / "part.py").write_text("from helper import value\n")
    write(place / "mine.py", imports, value, late)
    before = list(sys.path)
    assert registry.everything().broken == {}
    assert result() == 7.0
    assert (sys.path, "helper" in sys.modules) == (before, False)


@pytest.mark.parametrize("late", [False, True])
def test_a_changed_module_is_another_version(place: Path, late: bool) -> None:
    """Which the file's simulation then uses, while what was found before keeps what it had."""
    line = "from helper import value"
    write(place / "mine.py", "" if late else line, late=line if late else "pass")
    (place / "helper.py").write_text("def value(): return 1.0\n")
    before = registry.find("mine")
    (place / "helper.py").write_text("def value(): return 2.0\n")
    os.utime(place / "helper.py", ns=(1, 1))
    after = registry.find("mine")
    assert before.version != after.version
    assert (before.function(RNG)["x"], after.function(RNG)["x"]) == (1.0, 2.0)
    (place / "helper.py").write_text("def value(): return 1.0\n")
    assert registry.find("mine").version == before.version


def test_a_module_that_is_imported_by_a_call_counts(place: Path) -> None:
    """As by a statement, when its name is written out."""
    write(place / "mine.py", "import importlib", "importlib.import_module('helper').value()")
    (place / "helper.py").write_text("def value(): return 1.0\n")
    before = registry.find("mine").version
    (place / "helper.py").write_text("def value(): return 2.0\n")
    os.utime(place / "helper.py", ns=(1, 1))
    assert registry.find("mine").version != before
    assert result() == 2.0


def test_what_is_not_imported_is_no_part_of_the_version(place: Path) -> None:
    """And a file alone has the version that it always had."""
    write(place / "mine.py", "import numpy, json", "1.0")
    before = registry.find("mine").version
    (place / "other.py").write_text("x = 1")
    (place / "json.py").write_text("x = 1")
    os.utime(place / "mine.py", ns=(1, 1))
    assert registry.find("mine").version == before
    assert len(before) == 16


def test_a_module_of_a_module_counts(place: Path) -> None:
    """Also one in a package, and one that is new in it."""
    write(place / "mine.py", "from pack import value")
    (place / "pack").mkdir()
    (place / "pack" / "__init__.py").write_text("from deep import value")
    (place / "deep.py").write_text("def value(): return 1.0")
    seen = [registry.find("mine").version]
    (place / "deep.py").write_text("def value(): return 10.0")
    seen.append(registry.find("mine").version)
    (place / "pack" / "new.py").write_text("")
    os.utime(place / "pack", ns=(1, 1))
    seen.append(registry.find("mine").version)
    assert len(set(seen)) == 3
    assert result() == 10.0


def test_two_directories_with_a_module_of_one_name(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file gets its own, early and late."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.setenv(registry.VARIABLE, str(other))
    for number, directory in enumerate((place, other)):
        (directory / "helper.py").write_text(f"def value(): return {number}.0")
        write(directory / "mine.py", late="from helper import value")
        source = (directory / "mine.py").read_text().replace("def mine", f"def mine{number}")
        (directory / "mine.py").write_text(source)
        write(directory / "early.py", "from helper import value")
        (directory / "early.py").write_text((directory / "early.py").read_text().replace("mine", f"early{number}"))
    for number in (0, 1, 0):
        assert (result(f"mine{number}"), result(f"early{number}")) == (number, number)


def test_what_is_installed_comes_first(place: Path) -> None:
    """A file called like a package or a module of Python hides it from nobody; nothing is said of it either."""
    for name in ("numpy", "json", "scipy"):
        (place / f"{name}.py").write_text("value = 'ours'")
    write(place / "mine.py", "import numpy, json, scipy", "numpy.exp(0) + json.loads('1') + len(scipy.__version__)")
    assert registry.everything().broken == {}
    assert result() == 2.0 + len(version("scipy"))


def test_a_directory_of_the_name_is_no_package(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To Python any directory on the path could be one, until it finds a file."""
    (tmp_path / "path" / "helper").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "path")
    (place / "helper.py").write_text("def value(): return 2.0")
    write(place / "mine.py", "from helper import value")
    assert result() == 2.0


def test_the_working_directory_does_not_count(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the path of a worker and not on that of the command."""
    (place.parent / "helper.py").write_text("def value(): return 1.0")
    (place / "helper.py").write_text("def value(): return 2.0")
    write(place / "mine.py", "from helper import value")
    versions = []
    for entry in ("", str(place.parent)):
        monkeypatch.syspath_prepend(entry)
        os.utime(place / "mine.py", ns=(1, len(versions)))
        versions.append(registry.find("mine").version)
        assert result() == 2.0
    assert len(set(versions)) == 1


def test_a_module_without_simulations_is_not_broken(place: Path) -> None:
    write(place / "mine.py", "from helper import value")
    (place / "helper.py").write_text("def value(): return 1.0")
    found = registry.everything()
    assert (found.broken, list(found.found)) == ({}, [*registry.BUILT_IN, "mine"])


def test_a_simulation_that_another_file_imports_is_declared_once(place: Path) -> None:
    write(place / "mine.py", value="3.0")
    (place / "plot.py").write_text("from mine import mine\nimport numpy\nassert mine(numpy.random)['x'] == 3\n")
    assert registry.everything().broken == {}
    assert registry.find("mine").origin == str(place / "mine.py")


def test_a_module_that_comes_later(place: Path) -> None:
    """One that is missing, or half written, is told; and read as soon as it is whole."""
    write(place / "mine.py", "from helper import value")
    assert "ModuleNotFoundError: No module named 'helper'" in registry.everything().broken[str(place / "mine.py")]
    (place / "helper.py").write_text("def value(): ret")
    assert "mine" in registry.everything().found
    (place / "helper.py").write_text("def value(")
    broken = registry.everything().broken
    assert set(broken) == {str(place / "mine.py"), str(place / "helper.py")}
    assert all("SyntaxError" in text for text in broken.values())
    (place / "helper.py").write_text("def value(): return 5.0")
    assert registry.everything().broken == {}
    assert result() == 5.0


def test_what_a_module_defines_can_be_pickled(place: Path) -> None:
    """So that a job may hand it to processes of its own; and its tracebacks and classes are as ever."""
    (place / "helper.py").write_text(
        "import dataclasses\n\n@dataclasses.dataclass\nclass Point:\n    x: 'float'\n\ndef value(): return Point(2.0)\n"
    )
    write(place / "mine.py", "from helper import value", "value()")
    point = registry.find("mine").function(RNG)["x"]
    assert pickle.loads(pickle.dumps(point)) == point == dataclasses.replace(point)
    module = sys.modules[type(point).__module__]
    assert (module.__file__, module.__name__.startswith(neighbours.PREFIX)) == (str(place / "helper.py"), True)


def test_nothing_is_read_again_while_nothing_changes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers ask at every claim."""
    write(place / "mine.py", "from helper import value")
    (place / "helper.py").write_text("def value(): return 1.0")
    first = registry.find("mine")
    monkeypatch.setattr(neighbours, "read", None)
    since = time.process_time()
    assert [registry.find("mine") for _ in range(100)][-1].function is first.function
    assert time.process_time() - since < 1


def test_the_names_that_are_imported(place: Path) -> None:
    """By the file and by what lies beside it, but not what lies beside it."""
    write(place / "mine.py", "import helper, a.b", "1.0")
    (place / "helper.py").write_text("def f():\n    from c.d import e\n    from . import g\n")
    assert neighbours.read(place / "mine.py").imports == {"batchsim", "a", "c"}
    assert neighbours.imported(b"def (") == neighbours.imported(b"\0") == set()
