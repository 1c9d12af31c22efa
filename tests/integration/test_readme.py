"""The examples in README.md and docs/, pasted in order against a fresh daemon."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chatd.config import load
from tests.daemon import Daemon, environment
from tests.documents import example, examples
from tests.fork_server import completed

ADDRESS = "http://127.0.0.1:8080"
"""The daemon's address in the documents."""

SECONDS = 60.0


class Shell:
    """Pastes examples into a shell with its own directory."""

    def __init__(self, folder: Path, daemon: Daemon) -> None:
        self.folder = folder
        self._url = daemon.url
        self._environment = environment(HOME=str(folder), XDG_CONFIG_HOME=str(folder / "config"))

    def paste(self, *command: str) -> str:
        """Run a command that must succeed quietly; returns its output."""
        done = subprocess.run(
            [part.replace(ADDRESS, self._url) for part in command],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def python(self, program: str) -> str:
        """Run a program that must succeed quietly; returns its output."""
        path = self.folder / "program.py"
        path.write_text(program.replace(ADDRESS, self._url))
        return self._completed(path.name)

    def chatd(self, *arguments: str, typed: str = "") -> str:
        """Run a command that must succeed quietly; returns its output."""
        return self._completed("-m", "chatd.cli", *arguments, typed=typed)

    def _completed(self, *command: str, typed: str = "") -> str:
        done = completed(
            [part.replace(ADDRESS, self._url) for part in command],
            cwd=self.folder,
            env=self._environment,
            typed=typed,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout


def documents(text: str) -> list[Any]:
    """Parse consecutive JSON documents."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        while at < len(text) and text[at].isspace():
            at += 1
    return found


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    with Daemon(tmp_path) as daemon:
        yield Shell(tmp_path, daemon)


def run_curl_session(shell: Shell) -> list[Any]:
    session = example("README.md", "A session with curl", "bash")
    assert ADDRESS in session
    return documents(shell.paste("bash", "-c", session).strip())


NOTE = r"A note to myself\. 20[-0-9]+ [:0-9]+\+00:00\n'' 20[-0-9]+ [:0-9]+\+00:00\n\['bob'\]\n"
"""The output of the program that edits, deletes and blocks."""


def run_client_programs(shell: Shell) -> list[str]:
    programs = [each.text for each in examples("docs/client.md") if each.language == "python"]
    assert all(ADDRESS in program for program in programs)
    return [shell.python(program) for program in programs]


def test_the_readme_works_in_order(shell: Shell) -> None:
    ann, bob, *rest, keep_alive, streamed, page = run_curl_session(shell)
    assert (ann["id"], ann["username"]) == (1, "ann")
    assert (bob["id"], bob["username"]) == (2, "bob")
    # curl processes run in parallel, so either of these may be printed first.
    [sent] = [document for document in rest if "seq" in document]
    [poll] = [document for document in rest if "meta" in document]
    assert (sent["sent_by"], sent["received_by"], sent["message"]) == (2, 1, "hai")
    assert poll["messages"] == page["messages"] == [streamed["message"]] == [sent]
    assert keep_alive == {"keepalive": True}
    assert streamed["cursor"] == poll["meta"]["cursor"]
    assert 0 < poll["meta"]["waited"] < 25_000
    assert poll["meta"]["timed_out"] is False
    assert page["meta"]["current_page"] == "1"

    # The program is endless: leave the loop after the first message.
    listen = example("README.md", "A session with curl", "python") + " " * 12 + "break\n"
    program = f"""
from twisted.internet import defer, task
from chatd.client import ChatClient
{listen}
task.react(lambda reactor: defer.ensureDeferred(listen()))
"""
    assert shell.python(program) == "2 hai\n"

    # docs/client.md uses the same accounts: it works after the README, and twice.
    for _ in range(2):
        first, second, third, fourth, fifth = run_client_programs(shell)
        assert re.fullmatch(r"\d+ 1 hai\n", first)
        assert re.fullmatch(r"\d+ (hai|from my phone)\n", second)
        newest, own = third.splitlines()[:2]
        assert re.fullmatch(r"\d+ nightly report \('send',\) 20\S+ \S+ False", newest)
        assert re.fullmatch(r"\d+ Ann's laptop \(.*\) 20\S+ \S+ True", own)
        assert re.fullmatch(NOTE, fourth)
        assert fifth.splitlines()[:3] == [
            "sent by another device: from my phone",
            "read by bob",
            "bob 1 from my phone",
        ]


def test_the_client_programs_work_without_the_readme(shell: Shell) -> None:
    first, second, _, fourth, _ = run_client_programs(shell)
    assert [first, second] == ["1 1 hai\n", "1 hai\n"]
    assert re.fullmatch(NOTE, fourth)


def test_the_terminal_session_works_after_the_curl_session(shell: Shell) -> None:
    run_curl_session(shell)
    text = example("README.md", "In the terminal", "bash")
    commands = [shlex.split(line, comments=True) for line in text.splitlines()]
    [login, send, tail, changes, conversations, chat, sessions, passwd] = [
        command[1:] for command in commands
    ]
    assert {command[0] for command in commands} == {"chatd"}
    # Without a terminal, the password comes from standard input.
    options = ("--server", ADDRESS, "--password-stdin")
    shell.chatd(*login, *options, typed="zzzzz\n")
    shell.chatd(*send)
    [message] = documents(shell.chatd(*tail, "--count", "1"))
    assert message["message"] == "hai"
    assert (shell.folder / tail[-1]).exists()
    shown = shell.chatd(*changes, "--since", "0", "--count", "2", "--json")
    assert [each.get("type") for each in documents(shown)] == [None, "sent"]
    assert "bob" in shell.chatd(*conversations)
    assert "this one" in shell.chatd(*sessions)
    # These need a terminal: test_command.py.
    assert (chat, passwd) == (["chat", "bob"], ["passwd"])


def test_the_streams_of_the_protocol_work_after_the_curl_session(shell: Shell) -> None:
    run_curl_session(shell)
    commands = [each.text for each in examples("docs/protocol.md") if each.language == "bash"]
    streams = [command for command in commands if command.startswith("curl -N ")]
    assert len(streams) == 2
    for command in streams:
        # Without a terminal curl shows its progress; and the streams are endless.
        limited = command.replace("curl -N ", "curl -sN --max-time 1 ")
        assert '"message":"hai"' in shell.paste("bash", "-c", f"{limited}test $? = 28")


def test_the_tokens_of_the_protocol_work_after_the_curl_session(shell: Shell) -> None:
    run_curl_session(shell)
    commands = [each.text for each in examples("docs/protocol.md") if each.language == "bash"]
    [tokens] = [command for command in commands if "/tokens/" in command]
    page, listed = documents(shell.paste("bash", "-euc", tokens))
    assert page["messages"][0]["message"] == "hai"
    assert [token["label"] for token in listed["tokens"]] == ["backup of the inbox"]


def test_the_configuration_examples_are_valid(tmp_path: Path) -> None:
    path = tmp_path / "chatd.toml"
    found = [each.text for each in examples("docs/operations.md") if each.language == "toml"]
    assert found
    for text in found:
        path.write_text(text)
        _, warnings = load({"config": str(path)}, {})
        assert not warnings


def test_the_readme_warns_of_plain_http() -> None:
    # `tcp:PORT` without an interface listens on all of them.
    for name in ("README.md", "docs/operations.md"):
        for each in examples(name):
            assert not re.search(r"tcp:\d+(?!\S*interface=)", each.text), each
