"""Completion scripts of shells, and the command line with everything that they complete."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

import shtab

from chatd.cli.parser import parser
from chatd.config import OPTIONS


def completion_script(shell: str) -> str:
    """The script for a shell that `chatd completion` knows."""
    top = complete_parser()
    for command in _all_parsers(top):
        for action in command._actions:
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(top, shell)


def complete_parser() -> argparse.ArgumentParser:
    """The command line with the options of the daemon, which twistd parses when it is run."""
    top = parser()
    commands = subcommands(top)
    for name in ("serve", "check-config"):
        commands[name].add_argument("--config", metavar="FILE", help="The TOML file.")
        for option in OPTIONS:
            commands[name].add_argument(
                f"--{option.name}", metavar="VALUE", help=option.help.replace("%", "%%")
            )
    return top


def subcommands(command: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The commands below one, by name, in the order of its help."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _all_parsers(command: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield command
    for below in subcommands(command).values():
        yield from _all_parsers(below)
