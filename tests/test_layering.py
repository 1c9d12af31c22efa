"""The layers of chatd: which package may import which.

    plugin → tap → compose → process → api → domain → interfaces ← store, bus

`model` and `interfaces` depend on nothing above them, `http` knows nothing of chat, `api` and the
domain nothing of how messages are stored or wake-ups delivered, and only `compose` imports
implementations. The test fails for a package without a row, and for a row without a package.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# For each module or package in chatd/, the others that it may import, also for types only. Each row
# uses only rows above it.
TABLE: dict[str, set[str]] = {
    # Shared by all: values, errors, the interfaces, settings and metrics.
    "__init__": set(),
    "errors": set(),
    "model": {"errors"},
    "model_sync": {"errors", "model"},
    "interfaces": {"errors", "model", "model_sync"},
    "rates": set(),
    "config": {"rates"},
    "maintenance": set(),
    "metrics": {"__init__"},
    # General-purpose code on top of Twisted and libpq, which knows nothing of chat.
    "runtime": {"errors"},
    "http": {"runtime"},
    "postgres": {"errors", "runtime"},
    "nats": set(),
    # The domain: uses the interfaces, and neither their implementations nor HTTP.
    "domain": {"errors", "interfaces", "metrics", "model", "model_sync", "rates", "runtime"},
    # Implementations of the interfaces.
    "store": {"errors", "interfaces", "maintenance", "model", "model_sync", "postgres", "runtime"},
    "bus": {"errors", "interfaces", "model", "nats", "postgres", "runtime"},
    # Translates between HTTP and the domain.
    "page": set(),
    "api": {"__init__", "errors", "domain", "http", "metrics", "model", "model_sync", "page"},
    # The client side, which shares no code with the daemon.
    "client": set(),
    "conformance": {"client"},
    # The process: starts, drains and stops the components that `compose` creates.
    "process": {
        "__init__",
        "config",
        "errors",
        "domain",
        "http",
        "interfaces",
        "metrics",
        "model",
        "runtime",
    },
    # The composition root, and the entry point of twistd.
    "compose": {
        "api",
        "bus",
        "config",
        "domain",
        "errors",
        "http",
        "interfaces",
        "maintenance",
        "metrics",
        "model",
        "nats",
        "postgres",
        "process",
        "runtime",
        "store",
    },
    # The commands for administrators, which work on the database itself, and the command `chatd`,
    # which imports them when one of them is run and is a client otherwise. `cli` takes the daemon's
    # options from `config`, to complete them.
    "admin": {"compose", "config", "domain", "errors", "maintenance", "model", "runtime"},
    "cli": {"__init__", "admin", "client", "config"},
    # What --check prints; the entry point of twistd.
    "check": {"__init__", "compose", "config", "process"},
    "tap": {"__init__", "check", "compose", "config", "errors", "process", "runtime"},
}

# Files outside chatd/, and what they may import from it. The plugin names `tap` only in a string.
OUTSIDE: dict[str, set[str]] = {
    "twisted/plugins/chatd_plugin.py": set(),
    "chatd.tac": {"tap"},
}

# The composition root, what may import it, and what only it may import.
ROOT_ROW = "compose"
ENTRY_POINTS = {"admin", "check", "tap"}
IMPLEMENTATIONS = {"store", "bus"}

REACTOR = "twisted.internet.reactor"


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: all but what is inside functions."""
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += ast.iter_child_nodes(node)


def imported(nodes: Iterable[ast.AST], package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import of a module in `package`.

    ``from a import b`` gives ``a.b``, whether `b` is a module or not.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                names = (*base, node.module, alias.name)
                yield node.lineno, ".".join(name for name in names if name)


def row_of(name: str, rows: Iterable[str]) -> str | None:
    """The row of an imported name; None outside chatd."""
    top, _, rest = name.partition(".")
    if top != "chatd":
        return None
    first = rest.partition(".")[0]
    # `from chatd import __version__` imports only the package itself.
    return "__init__" if first not in rows and first.startswith("__") else first or "__init__"


def file_findings(path: Path, root: Path, row: str, table: Mapping[str, set[str]]) -> Iterator[str]:
    """The forbidden imports of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    where = path.relative_to(root)
    package = where.parts[:-1]
    for line, name in imported(ast.walk(tree), package):
        target = row_of(name, table)
        if target not in {None, "__init__", row, *table[row]}:
            yield f"{where}:{line}: {row} may not import {target}"
    for line, name in imported(at_import(tree), package):
        if name == REACTOR or name.startswith(f"{REACTOR}."):
            yield f"{where}:{line}: the reactor is passed in, or imported inside a function"


def findings(
    root: Path, table: Mapping[str, set[str]], outside: Mapping[str, set[str]]
) -> list[str]:
    """Forbidden imports in the tree at `root`, packages without a row, and rows without a file."""
    package = root / "chatd"
    files: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        row = path.relative_to(package).parts[0].removesuffix(".py")
        files.setdefault(row, []).append(path)
    for name in outside:
        if (root / name).exists():
            files[name] = [root / name]
    rows = {**table, **outside}
    found = [f"{row}: no row in the table" for row in files if row not in rows]
    found += [f"{row}: no such file" for row in rows if row not in files]
    for row in files.keys() & rows.keys():
        for path in files[row]:
            found += file_findings(path, root, row, rows)
    return sorted(found)


def modules(root: Path) -> dict[str, set[str]]:
    """Each module of the package at `root`, and those it imports anywhere, for types included."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (root / "chatd").rglob("*.py")
    }
    graph = {}
    for module, path in paths.items():
        names = imported(
            ast.walk(ast.parse(path.read_text(encoding="utf-8"))),
            path.relative_to(root).parts[:-1],
        )
        # `from a import b` imports the module `a.b` or something in `a`.
        targets = {name if name in paths else name.rpartition(".")[0] for _, name in names}
        graph[module] = targets & paths.keys() - {module}
    return graph


def test_there_are_no_import_cycles() -> None:
    TopologicalSorter(modules(ROOT)).prepare()


def test_cycles_of_type_checking_imports_are_found(tmp_path: Path) -> None:
    (tmp_path / "chatd").mkdir()
    (tmp_path / "chatd/__init__.py").touch()
    (tmp_path / "chatd/a.py").write_text("if TYPE_CHECKING:\n    from chatd.b import B")
    (tmp_path / "chatd/b.py").write_text("def f():\n    from . import a")
    with pytest.raises(CycleError):
        TopologicalSorter(modules(tmp_path)).prepare()


def test_the_tree_follows_the_table() -> None:
    assert findings(ROOT, TABLE, OUTSIDE) == []


def test_the_table_has_no_cycle() -> None:
    TopologicalSorter(TABLE).prepare()


def test_the_table_names_only_existing_rows() -> None:
    for allowed in [*TABLE.values(), *OUTSIDE.values()]:
        assert allowed <= TABLE.keys()


def test_model_and_interfaces_import_nothing_above_them() -> None:
    assert TABLE["errors"] == set()
    assert TABLE["model"] <= {"errors"}
    assert TABLE["model_sync"] <= {"errors", "model"}
    assert TABLE["interfaces"] <= {"errors", "model", "model_sync"}


def test_only_the_composition_root_imports_implementations() -> None:
    importers = {row for row, allowed in {**TABLE, **OUTSIDE}.items() if allowed & IMPLEMENTATIONS}
    assert importers <= {ROOT_ROW}


def test_only_entry_points_import_the_composition_root() -> None:
    importers = {row for row, allowed in {**TABLE, **OUTSIDE}.items() if ROOT_ROW in allowed}
    assert importers <= ENTRY_POINTS


EXAMPLE: dict[str, set[str]] = {
    "__init__": set(),
    "model": set(),
    "store": {"model"},
    "http": {"model"},
}


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("chatd/http/api.py", "import chatd.model\nfrom chatd import __version__", []),
        ("chatd/http/api.py", "from chatd.http import wire\nfrom . import wire", []),
        ("chatd/http/api.py", "import chatd.store.sqlite.store", [":1: http may not import store"]),
        ("chatd/http/api.py", "from chatd import store", [":1: http may not import store"]),
        ("chatd/http/api.py", "from ..store import sqlite", [":1: http may not import store"]),
        ("chatd/http/api.py", "from .. import store", [":1: http may not import store"]),
        (
            "chatd/model.py",
            "def later():\n    from chatd.store import sqlite",
            [":2: model may not import store"],
        ),
        ("chatd/new.py", "", [": no row in the table"]),
        ("chatd/model.py", "def f():\n    from twisted.internet import reactor", []),
        ("chatd/model.py", "from twisted.internet import defer, reactor", [":1: the reactor"]),
        ("chatd/model.py", "try:\n    import twisted.internet.reactor\nfinally: 0", [":2: the"]),
        ("chatd/model.py", "class C:\n    from twisted.internet import reactor", [":2: the"]),
        ("chatd/model.py", "from twisted.internet.reactor import callLater", [":1: the"]),
    ],
)
def test_forbidden_imports_are_found(
    tmp_path: Path, file: str, source: str, expected: list[str]
) -> None:
    for name in ["__init__", "model", "store/__init__", "http/__init__", "http/wire"]:
        path = tmp_path / f"chatd/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / file).write_text(source)
    found = findings(tmp_path, EXAMPLE, {})
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_rows_without_a_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "chatd").mkdir()
    (tmp_path / "chatd/__init__.py").touch()
    assert findings(tmp_path, {"__init__": set(), "removed": set()}, {"chatd.tac": set()}) == [
        "chatd.tac: no such file",
        "removed: no such file",
    ]
