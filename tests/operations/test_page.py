"""Every command of docs/operations.md, pasted in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.daemon import CHATS, PASSWORD, Client, basic
from tests.documents import examples
from tests.examples import examples as by_profile
from tests.operations.machine import Machine

PAGE: Final = "docs/operations.md"
COMMANDS: Final = "bash"
OUTPUT: Final = "text"
FILES: Final = {"toml", "ini"}
"""Languages of files, which other tests read."""

IS_DEEP: Final = bool(by_profile(0, deep=1))
REPLICA: Final = "A replica on SQLite"
POINT_IN_TIME: Final = "Point in time on PostgreSQL"
OF_THEIR_OWN: Final = {REPLICA, POINT_IN_TIME}
"""Sections that are pasted with --deep, each after what it needs of the others."""

DEAR: Final = "chatd doctor"
"""A command whose block is pasted with --deep only."""
ENDLESS: Final = "chatd serve"
"""A command that ends when it is told to."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()


def matches(expected: str, output: str) -> bool:
    """Whether a block of output is what was printed, but for numbers."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(expected.strip()))
    return re.fullmatch(pattern, output.strip()) is not None


def commands(*sections: str) -> list[str]:
    """The commands of these sections."""
    blocks = [each for each in examples(PAGE) if each.language == COMMANDS]
    found = [each.text for section in sections for each in blocks if each.section == section]
    assert len(found) >= len(sections)
    return found


def test_every_command_of_the_page_works(machine: Machine) -> None:
    output = ""
    for block in examples(PAGE):
        if block.section in OF_THEIR_OWN or (DEAR in block.text and not IS_DEEP):
            continue
        if block.language == COMMANDS and ENDLESS in block.text:
            machine.paste_daemon(block.text)
        elif block.language == COMMANDS:
            output = machine.paste(block.text)
        elif block.language == OUTPUT and output:
            assert matches(block.text, output), output
            output = ""


def test_blocks_are_commands_output_or_files() -> None:
    blocks = examples(PAGE)
    assert {block.language for block in blocks} == {COMMANDS, OUTPUT, *FILES}
    assert {block.section for block in blocks} >= OF_THEIR_OWN


if IS_DEEP:

    def test_a_replica_is_restored(machine: Machine) -> None:
        for text in commands("Debian package", "Run it under systemd", REPLICA):
            machine.paste(text)

    def test_what_is_lost_by_going_back_in_time_is_noticed(machine: Machine) -> None:
        for text in commands("Debian package", "PostgreSQL", "Run it under systemd"):
            machine.paste(text)
        machine.paste(
            f"echo {PASSWORD} | runuser -u chatd -- chatd user add bob"
            " --email bob@example.org --password-file -"
        )
        cursor = ""
        for text in commands(POINT_IN_TIME):
            machine.paste(text)
            if "moment=" in text:
                cursor = send_to_oneself(machine.port(8080), "bob", 2)
        client = Client(machine.port(8081), basic("bob"))
        found = client.get(f"{CHATS}?since={cursor}")
        client.close()
        assert (found.status, found.json["code"]) == (410, "cursor_epoch")


def send_to_oneself(port: int, name: str, user_id: int) -> str:
    """Send a message and return the cursor after it."""
    client = Client(port, basic(name))
    sent = client.request("POST", CHATS, {"user_id": user_id, "message": "lost"})
    assert (sent.status, sent.json["sent_by"]) == (201, user_id)
    cursor: str = client.get(f"{CHATS}?since=now").json["meta"]["cursor"]
    client.close()
    return cursor
