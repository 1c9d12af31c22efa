"""How commands that talk to a service fail."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from chatd.cli import runner
from chatd.cli.errors import CommandError
from chatd.client import APIError, Unreachable
from tests.doubles import result_of


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (APIError(400, "invalid_body", "no\x1b[2J"), "chatd: no\\x1b[2J"),
        (
            Unreachable("no stream: \x9b2J"),
            "chatd: cannot reach http://x: no stream: ",
        ),
        (CommandError("no such user: \u202e"), "chatd: no such user: \\u202e"),
    ],
)
def test_what_a_service_says_does_not_act_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, error: Exception, printed: str
) -> None:
    async def fail(args: argparse.Namespace, session: Any) -> None:
        raise error

    async def close() -> None:
        pass

    monkeypatch.setattr(runner, "COMMANDS", {"send": fail})
    session: Any = SimpleNamespace(server="http://x", close=close)
    running = Deferred.fromCoroutine(runner._run(argparse.Namespace(command="send"), session))
    with pytest.raises(SystemExit) as exit:
        result_of(running)
    assert str(exit.value).startswith(printed)
    assert str(exit.value).isprintable()
