"""Modules beside a simulation's file: found before it runs, part of its version, and imported as its own.

A file that says ``from model import step`` gets the ``model.py`` of its directory, as it was when the file was read.
It gets it under a name that has the version in it, for which its import statements are rewritten. So two directories
and two versions can each have a ``model`` in one process, and what runs keeps the code that it began with, also where
it imports it late. Nothing that is installed is hidden: what can be imported without the directory comes first.
"""

import ast
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from pathlib import Path

VERSION_CHARACTERS = 16
PREFIX = "batchsim_beside_"
# What ``import a.b`` binds besides ``a``, which nobody asked for.
UNUSED = "__beside__"

Mark = tuple[int, int]


@dataclass(frozen=True)
class Module:
    """A module's file and what it held."""

    path: Path
    text: bytes


@dataclass(frozen=True)
class Source:
    """A simulation's file and the modules beside it that it imports, itself or by one another, as they were read."""

    path: Path
    text: bytes
    #: ``model``, or ``package.part`` → the module.
    beside: Mapping[str, Module]
    #: Top-level names of all that they import from elsewhere.
    imports: frozenset[str]
    #: What stat said of each file that was read; None of one that would have been, had it been there.
    marks: Mapping[Path, Mark | None]

    @cached_property
    def version(self) -> str:
        """Hash of the file; of it and the modules, if there are any."""
        digest = hashlib.sha256(self.text)
        for name, module in sorted(self.beside.items()):
            digest.update(f"\0{name}\0".encode() + hashlib.sha256(module.text).digest())
        return digest.hexdigest()[:VERSION_CHARACTERS]

    def unchanged(self) -> bool:
        """Whether all files are still what they were, by their stat."""
        return all(_mark(path) == seen for path, seen in self.marks.items())

    def execute(self, module: types.ModuleType) -> None:
        """Run the file as ``module``. Raises whatever it raises; SyntaxError or ValueError when it is no Python."""
        package = PREFIX + self.version
        if self.beside:
            _offer(package, self)
        self.execute_as(Module(self.path, self.text), module, package)

    def execute_as(self, source: Module, module: types.ModuleType, package: str) -> None:
        """As :meth:`execute`, of the file or of a module beside it."""
        code: bytes | ast.Module = source.text
        if self.beside:
            names = {name.partition(".")[0] for name in self.beside}
            code = ast.fix_missing_locations(_Renamed(package, names).visit(ast.parse(source.text, str(source.path))))
        exec(compile(code, str(source.path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the purpose


def read(path: Path) -> Source:
    """Read a file and the modules beside it that it imports. Raises OSError when the file cannot be read."""
    # Each stat comes before what is read: a file that is being written is then read again.
    marks: dict[Path, Mark | None] = {path: _stat(path)}
    text = path.read_bytes()
    beside: dict[str, Module] = {}
    waiting, seen = sorted(imported(text)), set(sys.stdlib_module_names)
    imports = set(waiting)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        files = _files_of(path.parent, name)
        # What is loaded already came from elsewhere: from here it would have another name.
        if not files and name in sys.modules:
            continue
        marks.update({each: _mark(each) for each in (*_places(path.parent, name), *files.values())})
        marks.update({each.parent: _mark(each.parent) for each in files.values() if each.parent != path.parent})
        if not files or _installed(name):
            continue
        found = {dotted: Module(each, each.read_bytes()) for dotted, each in files.items()}
        beside |= found
        further = {each for module in found.values() for each in imported(module.text)}
        imports |= further
        waiting += sorted(further)
    own = {name.partition(".")[0] for name in beside}
    return Source(path, text, beside, frozenset(imports - own), marks)


def imported(text: bytes) -> set[str]:
    """Top-level names of the modules that a file imports, anywhere in it; none when it is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # It is told when it is executed.
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
        elif name := _written_out(node):
            found.add(name.partition(".")[0])
    # Of a name that begins with a dot.
    return found - {""}


def _written_out(node: ast.AST) -> str:
    """The name in ``importlib.import_module("name")``, else ""; a computed one is only known when it is too late."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="importlib"), attr="import_module") | ast.Name(id="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return name
    return ""


def _places(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / name / "__init__.py", directory / f"{name}.py"


def _files_of(directory: Path, name: str) -> dict[str, Path]:
    """The files of the module or package of this name in a directory, by their dotted names."""
    package, module = _places(directory, name)
    if package.is_file():
        return dict(_files_in(package.parent, name))
    return {name: module} if module.is_file() else {}


def _files_in(package: Path, name: str) -> Iterator[tuple[str, Path]]:
    for each in sorted(package.iterdir()):
        if each.suffix == ".py" and each.is_file():
            yield name if each.stem == "__init__" else f"{name}.{each.stem}", each
        elif (each / "__init__.py").is_file():
            yield from _files_in(each, f"{name}.{each.name}")


def _installed(name: str) -> bool:
    # The working directory is on the path of some of our processes and not of others.
    here = Path.cwd()
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    for finder in sys.meta_path:
        spec = finder.find_spec(name, elsewhere if finder is PathFinder else None)
        # Any directory is a package without a loader of its own, which gives way to a file.
        if spec is not None and spec.origin is not None:
            return True
    return False


def _stat(path: Path) -> Mark:
    seen = path.stat()
    return seen.st_mtime_ns, seen.st_size


def _mark(path: Path) -> Mark | None:
    try:
        return _stat(path)
    except OSError:
        return None


class _Renamed(ast.NodeTransformer):
    """Imports of modules beside the file, with the names that they have in ``package``."""

    def __init__(self, package: str, names: set[str]) -> None:
        self._package = package
        self._names = names

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        """``import a.b`` binds ``a``; with another name it would bind that."""
        found = [ast.Import([each]) for alias in node.names for each in self._aliases(alias)]
        return [ast.copy_location(statement, node) for statement in found]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        """``from a.b import c``."""
        if node.level == 0 and node.module and node.module.partition(".")[0] in self._names:
            node.module = f"{self._package}.{node.module}"
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """``importlib.import_module("a.b")``."""
        name = _written_out(node)
        if name.partition(".")[0] in self._names:
            node.args[0] = ast.copy_location(ast.Constant(f"{self._package}.{name}"), node.args[0])
        return self.generic_visit(node)

    def _aliases(self, alias: ast.alias) -> list[ast.alias]:
        root, dot, _ = alias.name.partition(".")
        if root not in self._names:
            return [alias]
        whole = f"{self._package}.{alias.name}"
        if alias.asname or not dot:
            return [ast.alias(whole, alias.asname or root)]
        return [ast.alias(f"{self._package}.{root}", root), ast.alias(whole, UNUSED)]


# Package → the source whose modules it has.
_offered: dict[str, Source] = {}


def _offer(package: str, source: Source) -> None:
    """Make the modules of a source importable under ``package``, which has their version in its name."""
    # Threads may do so at once: nothing is taken away from one that imports just now.
    if package in _offered:
        return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    parent = types.ModuleType(package)
    parent.__path__ = []
    sys.modules.setdefault(package, parent)
    _offered[package] = source


class _Finder:
    """Finds what :func:`_offer` offers."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks."""
        package, _, name = fullname.partition(".")
        source = _offered.get(package)
        if source is None or name not in source.beside:
            return None
        module = source.beside[name]
        loader = _Loader(source, module, package)
        whole = module.path.name == "__init__.py"
        spec = spec_from_loader(fullname, loader, origin=str(module.path), is_package=whole)
        assert spec is not None
        spec.has_location = True
        return spec


class _Loader(Loader):
    """Runs a module beside a simulation's file, as it was read."""

    def __init__(self, source: Source, module: Module, package: str) -> None:
        self._source, self._module, self._package = source, module, package

    def exec_module(self, module: types.ModuleType) -> None:
        """As the import system asks."""
        self._source.execute_as(self._module, module, self._package)
