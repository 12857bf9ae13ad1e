"""The rooms of the house: who may import whom, and that nothing happens at import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.ledger.connection import SCRIPTS
from tests.support import REPO, environment

SOURCES = sorted(path for room in ("common", "services", "batchsim") for path in (REPO / room).rglob("*.py"))
MODULES = [str(path.relative_to(REPO)) for path in SOURCES]
SERVICES = sorted(path.name for path in (REPO / "services").iterdir() if (path / "__init__.py").exists())
ROOMS = ["common", "batchsim", *(f"services.{name}" for name in SERVICES)]
# package: where it may be imported
ALLOWED = {
    "redis": ("common/ledger/",),
    "flask": ("services/api/",),
    "werkzeug": ("services/api/",),
    "celery": (
        "common/control.py",
        "common/queue.py",
        "common/submission.py",
        "common/recovery.py",
        "common/verification.py",
        "services/worker/",
        "services/flower/",
    ),
    "kombu": (
        "common/control.py",
        "common/queue.py",
        "common/submission.py",
        "common/recovery.py",
        "common/verification.py",
        "services/worker/",
        "services/flower/",
    ),
    "billiard": ("services/worker/",),
    "flower": ("services/flower/",),
    "rich": ("services/local/",),
    "click": ("batchsim/",),
}


def imports(module: str) -> Iterator[str]:
    """Every module that this file imports, also inside functions: ``from a import b`` as a and a.b."""
    for node in ast.walk(ast.parse((REPO / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def heads(module: str, depth: int = 1) -> set[str]:
    """The first ``depth`` parts of what the module imports."""
    return {".".join(name.split(".")[:depth]) for name in imports(module)}


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_in_their_rooms(module: str) -> None:
    """Redis, Flask, Celery and the like are imported only where they belong."""
    for package in heads(module) & ALLOWED.keys():
        assert module.startswith(ALLOWED[package]), f"{module} imports {package}"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("common/")])
def test_common_imports_no_service(module: str) -> None:
    """The arrows go from the services to common, never back."""
    assert not heads(module) & {"services", "batchsim", "tests"}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("services/")])
def test_services_do_not_import_each_other(module: str) -> None:
    """services/local starts the others as processes; no service imports another."""
    own = f"services.{module.split('/')[1]}"
    others = {name for name in heads(module, 2) if name.startswith("services.")} - {own}
    assert not others
    assert "batchsim" not in heads(module)


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("batchsim/")])
def test_the_command_line_uses_only_the_embedded_form(module: str) -> None:
    """Batchsim imports common and services.local."""
    used = {name for name in heads(module, 2) if name.startswith("services.")}
    assert used <= {"services.local"}


IMPORT_ALL = """
import importlib, logging, os, signal, socket, sys, threading
before = dict(os.environ)
def refuse(*a, **k): raise AssertionError("a socket at import")
real = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = refuse
sigterm = signal.getsignal(signal.SIGTERM)
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not logging.getLogger().handlers, f"{name} set up logging"
    assert logging.getLogger().level == logging.WARNING, f"{name} set the log level"
    assert threading.active_count() == 1, f"{name} started {threading.enumerate()}"
    assert signal.getsignal(signal.SIGTERM) == sigterm, f"{name} changed SIGTERM"
    assert dict(os.environ) == before, f"{name} changed the environment"
import structlog
assert not structlog.is_configured()
"""


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_happens_at_import(room: str, tmp_path: Path) -> None:
    """With an empty environment every module imports: no socket, thread, log set-up, signal or printed word."""
    prefix = room.replace(".", "/") + "/"
    names = [m.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for m in MODULES if m.startswith(prefix)]
    kept = {"PYTHONPATH": environment()["PYTHONPATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names], env=kept, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_a_docstring(module: str) -> None:
    """Modules, public classes and public functions say what they promise."""
    tree = ast.parse((REPO / module).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), module
    bare = [node.name for node in public(tree) if not ast.get_docstring(node)]
    assert not bare


def public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Public classes and functions of a module, and public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                inner = [part for part in node.body if isinstance(part, ast.FunctionDef)]
                yield from (part for part in inner if not part.name.startswith("_"))


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.lua")), ids=lambda path: path.stem)
def test_lua_scripts_open_with_their_contract(script: Path) -> None:
    """A script's first lines name it, its from -> to, its KEYS and ARGV, and what it returns."""
    if script.stem in ("lib", "endings"):
        pytest.skip("the library is put in front of the others and moves nothing itself")
    lines = script.read_text(encoding="utf-8").splitlines()
    header = []
    for line in lines:
        if not line.startswith("--"):
            break
        header.append(line)
    text = "\n".join(header)
    assert lines[0].startswith(f"-- {script.stem}: ")
    assert "->" in header[0] or "moves nothing" in header[0] or "->" in text.split("KEYS")[0], text
    assert "-- KEYS" in text
    assert "-- ARGV" in text or "ARGV[" not in script.read_text(encoding="utf-8")
    assert "-- returns" in text


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.lua")), ids=lambda path: path.stem)
def test_lua_scripts_never_walk_all_keys(script: Path) -> None:
    """KEYS, SCAN and FLUSHALL are banned in scripts: their cost grows with everything that is stored."""
    code = "\n".join(line.split("--")[0] for line in script.read_text(encoding="utf-8").splitlines())
    for word in ("'KEYS'", "'SCAN'", "'FLUSH"):
        assert word not in code


def test_test_files_have_names_of_their_own() -> None:
    """Python knows two of one name apart no more than their first; then not a single test is run."""
    names = [path.name for path in (REPO / "tests").rglob("*.py") if path.name not in ("__init__.py", "conftest.py")]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
