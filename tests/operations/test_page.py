"""Every command of docs/operations.md, pasted in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.documents import Example, examples
from tests.examples import examples as by_profile
from tests.operations.machine import Machine

PAGE: Final = "docs/operations.md"
COMMANDS: Final = "bash"
OUTPUT: Final = "text"
FILES: Final = {"toml", "ini"}
"""Languages of files, which other tests read."""

DEAR: Final = ("chatd doctor",)
"""Commands whose blocks take long: they are pasted with --deep only."""
ENDLESS: Final = "chatd serve"
"""A command that ends when it is told to."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()


def is_pasted(block: Example) -> bool:
    """Whether the profile of this run pastes the block."""
    return bool(by_profile(0, deep=1)) or not any(dear in block.text for dear in DEAR)


def matches(expected: str, output: str) -> bool:
    """Whether a block of output is what was printed, but for numbers and addresses."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(expected.strip()))
    return re.fullmatch(pattern, output.strip()) is not None


def test_every_command_of_the_page_works(machine: Machine) -> None:
    output = ""
    for block in examples(PAGE):
        if block.language == COMMANDS and ENDLESS in block.text:
            machine.paste_daemon(block.text)
        elif block.language == COMMANDS:
            output = machine.paste(block.text) if is_pasted(block) else ""
        elif block.language == OUTPUT and output:
            assert matches(block.text, output), output
            output = ""


def test_blocks_are_commands_output_or_files() -> None:
    found = {block.language for block in examples(PAGE)}
    assert found == {COMMANDS, OUTPUT, *FILES}
