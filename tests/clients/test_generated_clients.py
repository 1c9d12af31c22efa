"""Clients that are made from the API's description work as they are. Run by scripts/check-clients.

The tools are on the PATH; `session.py` and `session.ts` use the clients.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatd.api.api import API
from chatd.api.docs.docs_page import describe
from tests.daemon import ROOT, Daemon

HERE = Path(__file__).parent
TOOLS = ROOT / ".clients"

# The generator's own module, which does not depend on the description, has errors of its own.
TYPES = """
[mypy]
strict = True
[mypy-chatd_client.client]
disable_error_code = arg-type
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the description, `openapi.json`."""
    (tmp_path / "openapi.json").write_bytes(describe(API.calls).json.file.body)
    return tmp_path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    data = tmp_path / "daemon"
    data.mkdir()
    with Daemon(data) as daemon:
        yield daemon


def run(folder: Path, *command: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_redocly_finds_nothing(folder: Path) -> None:
    output = run(folder, "redocly", "lint", "--format=stylish", "openapi.json")
    assert " warning " not in output, output


def test_a_client_in_python_works(folder: Path, daemon: Daemon) -> None:
    run(
        folder,
        *("openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none"),
        *("--output-path", "chatd_client", "--fail-on-warning"),
    )
    shutil.copy(HERE / "session.py", folder)
    (folder / "mypy.ini").write_text(TYPES)
    python = str(TOOLS / "python" / "bin" / "python")
    run(folder, sys.executable, "-m", "mypy", "--python-executable", python, "session.py")
    run(folder, python, "session.py", daemon.url)


def test_a_client_in_typescript_works(folder: Path, daemon: Daemon) -> None:
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copy(HERE / "session.ts", folder)
    run(folder, "openapi-typescript", "openapi.json", "--output", "api.ts")
    run(
        folder,
        *("tsc", "--strict", "--noUncheckedIndexedAccess", "--skipLibCheck", "--target", "es2022"),
        *("--module", "nodenext", "--types", "node", "session.ts"),
    )
    run(folder, "node", "session.js", daemon.url)
