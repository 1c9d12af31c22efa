"""Output for programs, which may be a terminal after all."""

from __future__ import annotations

import json

import pytest

from chatd.admin.printing import print_json


def test_nothing_in_json_acts_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\x1b[2J \x7f \x9b2J \u202e \u2067 \u200f \u2028 ü\n"
    print_json({"message": text})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"message": text}
    assert all(each.isprintable() for each in printed.rstrip("\n"))
    assert "ü" in printed
