"""Who may import whom: the one-way flow of the design, held by a table.

    plugin → tap → service → http → accounts, chats → IStore, notifier ← bus

`model` and `interfaces` know nothing of the rest, `http` and the domain nothing of how messages are
stored or wake-ups carried, and only `tap` names implementations. A module without a row fails, so
does a row without a module: whoever adds a module says here where in the flow it stands.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# One row a module of chatd/, or a package there with all that it holds: what of chatd it may
# import besides itself. Types count like everything else. Lower rows may use higher ones only.
TABLE: dict[str, set[str]] = {
    # What every room speaks: values, errors, the two seams; settings and figures.
    "__init__": set(),
    "errors": set(),
    "model": {"errors"},
    "interfaces": {"errors", "model"},
    "config": set(),
    "metrics": {"__init__"},
    # Mechanisms on Twisted and libpq that know nothing of chat.
    "runtime": {"errors"},
    "http": set(),
    "postgres": {"errors", "runtime"},
    # What chatd does: knows the seams, never who is behind them or before it.
    "domain": {"errors", "interfaces", "metrics", "model", "runtime"},
    # The implementations of the seams.
    "store": {"errors", "interfaces", "model", "postgres", "runtime"},
    "bus": {"errors", "interfaces", "model", "postgres", "runtime"},
    # Translates between HTTP and the domain.
    "page": set(),
    "api": {"__init__", "errors", "domain", "http", "metrics", "model", "page"},
    # A program on the other side of HTTP shares no code with the daemon.
    "client": set(),
    "cli": {"__init__", "client"},
    "conformance": {"client"},
    # Starts, drains and stops the parts that the composition root puts together.
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
    # The composition root, and twistd's way to it.
    "compose": {
        "api",
        "bus",
        "config",
        "domain",
        "http",
        "interfaces",
        "metrics",
        "postgres",
        "process",
        "runtime",
        "store",
    },
    "tap": {"__init__", "compose", "config", "process"},
}

# Files outside chatd/ and what of it they may import. The plugin is data: it names tap in a string.
OUTSIDE: dict[str, set[str]] = {
    "twisted/plugins/chatd_plugin.py": set(),
    "chatd.tac": {"tap"},
}

# The composition root, who may import it, and what nobody else may.
ROOT_ROW = "compose"
STARTS = {"tap"}
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
    """Line and dotted name of each thing imported by a module in `package`.

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
    """The row that the imported name falls under; None for what is not chatd's."""
    top, _, rest = name.partition(".")
    if top != "chatd":
        return None
    first = rest.partition(".")[0]
    # `from chatd import __version__` imports the package alone.
    return "__init__" if first not in rows and first.startswith("__") else first or "__init__"


def file_findings(path: Path, root: Path, row: str, table: Mapping[str, set[str]]) -> Iterator[str]:
    """What the file imports and may not."""
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
    """What the tree at `root` does and the tables do not allow, and rows with nothing behind."""
    package = root / "chatd"
    files: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        row = path.relative_to(package).parts[0].removesuffix(".py")
        files.setdefault(row, []).append(path)
    for name in outside:
        if (root / name).exists():
            files[name] = [root / name]
    rows = {**table, **outside}
    found = [f"{row}: no row says what it may import" for row in files if row not in rows]
    found += [f"{row}: nothing is behind this row" for row in rows if row not in files]
    for row in files.keys() & rows.keys():
        for path in files[row]:
            found += file_findings(path, root, row, rows)
    return sorted(found)


def test_the_tree_keeps_to_the_table() -> None:
    assert findings(ROOT, TABLE, OUTSIDE) == []


def test_the_table_has_no_circle() -> None:
    TopologicalSorter(TABLE).prepare()


def test_the_table_names_only_its_own_rows() -> None:
    for allowed in [*TABLE.values(), *OUTSIDE.values()]:
        assert allowed <= TABLE.keys()


def test_model_and_interfaces_know_nothing_else() -> None:
    assert TABLE["errors"] == set()
    assert TABLE["model"] <= {"errors"}
    assert TABLE["interfaces"] <= {"errors", "model"}


def test_only_the_composition_root_names_implementations() -> None:
    naming = {row for row, allowed in {**TABLE, **OUTSIDE}.items() if allowed & IMPLEMENTATIONS}
    assert naming <= {ROOT_ROW}


def test_only_tap_names_the_composition_root() -> None:
    naming = {row for row, allowed in {**TABLE, **OUTSIDE}.items() if ROOT_ROW in allowed}
    assert naming <= STARTS


MADE_UP: dict[str, set[str]] = {
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
        ("chatd/new.py", "", [": no row says what it may import"]),
        ("chatd/model.py", "def f():\n    from twisted.internet import reactor", []),
        ("chatd/model.py", "from twisted.internet import defer, reactor", [":1: the reactor"]),
        ("chatd/model.py", "try:\n    import twisted.internet.reactor\nfinally: 0", [":2: the"]),
        ("chatd/model.py", "class C:\n    from twisted.internet import reactor", [":2: the"]),
        ("chatd/model.py", "from twisted.internet.reactor import callLater", [":1: the"]),
    ],
)
def test_the_check_sees(tmp_path: Path, file: str, source: str, expected: list[str]) -> None:
    for name in ["__init__", "model", "store/__init__", "http/__init__", "http/wire"]:
        path = tmp_path / f"chatd/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / file).write_text(source)
    found = findings(tmp_path, MADE_UP, {})
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_the_check_sees_rows_that_nothing_is_behind(tmp_path: Path) -> None:
    (tmp_path / "chatd").mkdir()
    (tmp_path / "chatd/__init__.py").touch()
    assert findings(tmp_path, {"__init__": set(), "gone": set()}, {"chatd.tac": set()}) == [
        "chatd.tac: nothing is behind this row",
        "gone: nothing is behind this row",
    ]
