"""The command line of `chatd`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from chatd.cli.completion import completion_script
from chatd.cli.parser import parser
from chatd.cli.runner import COMMANDS
from tests.daemon import environment


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_parser(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parser().parse_args([name, "--help"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: chatd {name} ")


def test_twisted_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, chatd.cli.main; sys.exit('twisted.internet' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_there_is_a_completion_script_for_each_shell(shell: str) -> None:
    assert parser().parse_args(["completion", shell]).shell == shell
    script = completion_script(shell)
    assert all(text in script for text in ("register", "revoke-others", "max-message-bytes"))


@pytest.mark.parametrize("limit", ["0", "-1", "x", ""])
def test_a_limit_is_a_number_from_one(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["conversations", "--limit", limit])
    assert "--limit: invalid" in capsys.readouterr().err
