"""The manual pages and completion scripts that packages install are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatd.cli.completion import complete_parser, subcommands
from scripts.manual_pages import COMPLETIONS, PAGES, escape


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_are_up_to_date(path: Path) -> None:
    assert PAGES[path]() == path.read_text(encoding="utf-8"), "run scripts/manual_pages.py"


# Not the whole text, which depends on the release of shtab.
@pytest.mark.parametrize("shell", COMPLETIONS)
def test_the_completions_are_up_to_date(shell: str) -> None:
    text = COMPLETIONS[shell].read_text(encoding="utf-8")
    top = complete_parser()
    options = {"--help"}
    commands = [top]
    for command in commands:
        options |= {name for action in command._actions for name in action.option_strings}
        commands += subcommands(command).values()
        assert all(re.search(rf"\b{name}\b", text) for name in subcommands(command))
    flag = r"^complete .*? -l ([a-z-]+)" if shell == "fish" else r"(?<![\w-])--([a-z][a-z-]+)"
    found = {f"--{name}" for name in re.findall(flag, text, re.MULTILINE)}
    assert found == options - {"-h"}, "run scripts/manual_pages.py"


def test_what_troff_would_interpret_is_escaped() -> None:
    assert escape(".nf\n'a-\\n\"") == "\\&.nf\n\\(aqa\\-\\(rsn\\(dq"
