"""Runs pytest in a process of its own, on modules that are given as text."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).resolve().parent.parent
RUN_SECONDS: Final = 120


def command(folder: Path, *arguments: str, **modules: str) -> list[str]:
    """Write these modules under this project's own configuration; returns the command line.

    It is to be run in `folder`.
    """
    tests = folder / "tests"
    tests.mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("conftest.py", "workers.py"):
        shutil.copy(ROOT / "tests" / name, tests)
    for name, text in modules.items():
        (tests / f"{name}.py").write_text(text)
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]


def run(folder: Path, *arguments: str, **modules: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on these modules under this project's own configuration."""
    done = subprocess.run(
        command(folder, *arguments, **modules),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    print(done.stdout, done.stderr)
    return done


def outcomes(report: Path) -> dict[str, list[str]]:
    """What went wrong according to a file that --junit-xml wrote, by name of the test."""
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        found.setdefault(case.attrib["name"], []).extend(child.tag for child in case)
    return found
