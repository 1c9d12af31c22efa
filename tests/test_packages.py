"""The container file and the Debian package fit the rest; neither is built here."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

import pytest

from chatd.cli.parser import parser
from chatd.config import load
from tests.daemon import ROOT

PACKAGING = ROOT / "packaging"
CONTAINERFILE = (PACKAGING / "container" / "Containerfile").read_text(encoding="utf-8")


def instruction(name: str) -> str:
    """What follows the last instruction of that name, on one line."""
    lines = CONTAINERFILE.replace("\\\n", "").splitlines()
    return next(line for line in reversed(lines) if line.startswith(f"{name} "))[len(name) :]


@pytest.mark.parametrize("name", ["chatd.toml", "container/chatd.toml"])
def test_the_settings_that_packages_install_are_valid(name: str) -> None:
    path = str(PACKAGING / name)
    settings, warnings = load({"config": path}, {})
    assert warnings == []
    assert (settings.registration, settings.db) == (False, "sqlite:/var/lib/chatd/chatd.db")


def test_the_operations_page_explains_the_settings_that_packages_install() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    example = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]
    installed = (PACKAGING / "chatd.toml").read_text(encoding="utf-8")
    assert tomllib.loads(example) == tomllib.loads(installed)


def test_the_health_check_of_the_container_asks_its_operators_listener() -> None:
    _, check = instruction("HEALTHCHECK").split("CMD")
    args = parser().parse_args(json.loads(check)[1:])
    settings, _ = load({"config": str(PACKAGING / "container" / "chatd.toml")}, {})
    assert args.command == "health"
    assert settings.admin == f"tcp:{args.url.rpartition(':')[2]}"


def test_the_container_starts_the_daemon_by_an_init_as_a_user_without_rights() -> None:
    init, _, program = json.loads(instruction("ENTRYPOINT"))
    assert init.endswith("/tini")
    assert program.endswith("/chatd")
    assert json.loads(instruction("CMD")) == ["serve"]
    assert instruction("USER").strip() == "10001:10001"


def test_the_build_of_the_container_is_given_what_it_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    given = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for sources in re.findall(r"^COPY ([^-\n].*) /", CONTAINERFILE, re.MULTILINE):
        copied |= {source.split("/")[0] for source in shlex.split(sources)}
    assert copied == given
    assert all((ROOT / name).exists() for name in given)


def test_the_package_has_the_units_and_settings_where_the_units_look_for_them() -> None:
    build = (PACKAGING / "debian" / "build").read_text(encoding="utf-8")
    unit = (PACKAGING / "systemd" / "chatd.service").read_text(encoding="utf-8")
    start = re.findall(r"^ExecStart=(\S+) serve --config (\S+)$", unit, re.MULTILINE)
    assert start == [("/usr/bin/chatd", "/etc/chatd/chatd.toml")]
    for path in start[0]:
        assert f"$root{path}" in build
    user = re.findall(r"^User=(\w+)$", unit, re.MULTILINE)
    postinst = (PACKAGING / "debian" / "postinst").read_text(encoding="utf-8")
    assert user == re.findall(r"adduser --system .* (\w+)$", postinst, re.MULTILINE)
