"""The systemd units in packaging/systemd, as systemd-analyze sees them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chatd.config import load
from tests.daemon import ROOT

UNITS = ROOT / "packaging" / "systemd"
SERVICES = ["chatd.service", "chatd@.service", "chatd-backup.service", "chatd-litestream.service"]
MAX_EXPOSURE = 2.0
"""Of 10; most of what remains is that the service talks to the network."""


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the units; their program is one that is installed here."""
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/chatd", sys.executable)
        text = text.replace("/opt/litestream/bin/litestream", sys.executable)
        (folder / unit.name).write_text(text)
    return folder


def analyze(*arguments: str) -> str:
    """The output of systemd-analyze, which must succeed."""
    program = shutil.which("systemd-analyze")
    assert program is not None, "on Debian: apt-get install systemd"
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_units_are_valid(units: Path) -> None:
    paths = [str(path) for path in sorted(units.iterdir())]
    assert len(paths) == 6
    output = analyze("verify", "--man=no", *paths)
    about_ours = [line for line in output.splitlines() if "chatd" in line]
    assert about_ours == []


@pytest.mark.parametrize("name", SERVICES)
def test_the_services_are_confined(units: Path, name: str) -> None:
    output = analyze("security", "--offline=true", "--no-pager", str(units / name))
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", output)
    assert match is not None, output
    assert float(match[1]) <= MAX_EXPOSURE


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / name)
    return parser


def test_the_template_differs_only_in_what_instances_must_not_share() -> None:
    one, several = (dict(unit(name)["Service"]) for name in SERVICES[:2])
    differing = {key for key in one | several if one.get(key) != several.get(key)}
    assert differing == {"Environment", "RuntimeDirectory"}


def test_the_service_is_given_time_to_drain() -> None:
    settings, _ = load({}, {})
    stop = int(unit("chatd.service")["Service"]["TimeoutStopSec"])
    assert stop >= settings.lame_duck_seconds + settings.drain_seconds + 30


def test_the_socket_has_the_name_that_its_comment_has_configured() -> None:
    name = unit("chatd.socket")["Socket"]["FileDescriptorName"]
    assert f'["systemd:domain=INET:name={name}"]' in (UNITS / "chatd.socket").read_text()
