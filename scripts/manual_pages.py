"""Writes the manual pages and the completion scripts that packages install, from the code.

Run it after a change of an option or a command. The pages are in packaging/man, in the macros of
man(7); the scripts in packaging/completions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from chatd.cli.completion import complete_parser, completion_script, subcommands
from chatd.config import OPTIONS
from scripts.configuration_reference import SOURCES

PACKAGING: Final = Path(__file__).resolve().parent.parent / "packaging"
EXAMPLE: Final = PACKAGING / "chatd.toml"

_LIKE_THE_DAEMON: Final = ("serve", "check-config")

_STATUS: Final = """\
0 on success, 1 if the command failed, 2 for wrong options or settings. Commands for administrators
also use 3 if there is no such user or token, 4 if the name is taken, and 5 if `db check` found
something. Errors are one line on standard error.
"""


def escape(text: str) -> str:
    """Plain text as troff reads it."""
    special = {"\\": "\\(rs", "-": "\\-", "~": "\\(ti", "^": "\\(ha", "'": "\\(aq", '"': "\\(dq"}
    # In front of a line, a period would begin a request.
    return re.sub(r"^\.", r"\\&.", "".join(special.get(char, char) for char in text), flags=re.M)


def chatd_1() -> str:
    """The page of the command."""
    top = complete_parser()
    parts = [
        _title("CHATD", 1, "User Commands"),
        _section("NAME", "chatd - chat from a terminal, or run the chat daemon"),
        ".SH SYNOPSIS\n.B chatd\n[\\fIOPTION\\fR...] \\fICOMMAND\\fR ...\n",
        _section("DESCRIPTION", f"{top.description} {top.epilog}"),
        ".SH OPTIONS\n",
        *_arguments(top),
        ".SH COMMANDS\n",
    ]
    for words, command in _leaves("chatd", top):
        parts.append(f'.SS "{escape(_synopsis(words, command))}"\n')
        parts.append(f"{escape(_sentence(command.description or ''))}\n")
        if words.split()[-1] in _LIKE_THE_DAEMON:
            parts.append("Its options are the settings of\n.BR chatd.toml (5),\nand\n")
            parts.append(".BR \\-\\-config .\n")
        else:
            parts += _arguments(command)
    parts += [
        _section("EXIT STATUS", _STATUS),
        _section("ENVIRONMENT", "CHATD_CONFIG names the file of settings; see chatd.toml(5)."),
        ".SH FILES\n.TP\n.I /etc/chatd/chatd.toml\nSettings, if \\fB\\-\\-config\\fR names it.\n",
        ".SH SEE ALSO\n.BR chatd.toml (5),\n.BR twistd (1)\n",
    ]
    return "".join(parts)


def chatd_toml_5() -> str:
    """The page of the daemon's settings."""
    parts = [
        _title("CHATD.TOML", 5, "File Formats"),
        _section("NAME", "chatd.toml - settings of the chat daemon"),
        ".SH SYNOPSIS\n.I /etc/chatd/chatd.toml\n",
        _section("DESCRIPTION", SOURCES.replace("`", "")),
        ".SH SETTINGS\n",
    ]
    for option in OPTIONS:
        about = f"Default: {option.default_text or 'none'}. Variable: {option.variable}."
        if option.reloadable:
            about += " Reloadable."
        parts.append(
            f".TP\n.B {escape(option.name)}\n{escape(option.help)}\n.br\n{escape(about)}\n"
        )
    example = EXAMPLE.read_text(encoding="utf-8")
    parts.append(f".SH EXAMPLE\n.nf\n{escape(example)}.fi\n")
    parts.append(".SH SEE ALSO\n.BR chatd (1)\n")
    return "".join(parts)


def _title(name: str, section: int, volume: str) -> str:
    return (
        '.\\" Written by scripts/manual_pages.py; do not edit.\n'
        f'.TH {name} {section} "" chatd "{volume}"\n'
    )


def _section(name: str, text: str) -> str:
    return f".SH {name}\n{escape(text.strip().replace('`', ''))}\n"


def _sentence(text: str) -> str:
    return text if not text or text[-1] in '.?!"' else f"{text}."


def _leaves(
    words: str, command: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands that have none below them, each with all its words."""
    for name, below in subcommands(command).items():
        if subcommands(below):
            yield from _leaves(f"{words} {name}", below)
        else:
            yield f"{words} {name}", below


def _synopsis(words: str, command: argparse.ArgumentParser) -> str:
    """The words of a command, that it has options, and what it needs."""
    needed = [words]
    if any(action.option_strings and action.dest != "help" for action in command._actions):
        needed.append("[OPTION...]")
    for action in command._actions:
        name = _value_of(action)
        if action.option_strings:
            if action.required:
                needed.append(f"{action.option_strings[-1]} {name}")
        elif action.nargs in ("?", "*"):
            needed.append(f"[{name}{'...' if action.nargs == '*' else ''}]")
        else:
            needed.append(name)
    return " ".join(needed)


def _value_of(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _arguments(command: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a command, and of its arguments those that are explained."""
    for action in command._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        if isinstance(action, argparse._VersionAction):
            yield ".TP\n.B \\-\\-version\nShow the version and exit.\n"
        elif action.help:
            value = "" if action.nargs == 0 else f"\\fI{escape(_value_of(action))}\\fR"
            names = [f"\\fB{escape(name)}\\fR" for name in action.option_strings]
            head = " ".join([*names, value]).strip()
            text = action.help.replace("%%", "%")
            yield f".TP\n{head}\n{escape(_sentence(text[0].upper() + text[1:]))}\n"


PAGES: Final[Mapping[Path, Callable[[], str]]] = {
    PACKAGING / "man" / "chatd.1": chatd_1,
    PACKAGING / "man" / "chatd.toml.5": chatd_toml_5,
}
COMPLETIONS: Final[Mapping[str, Path]] = {
    "bash": PACKAGING / "completions" / "bash" / "chatd",
    "zsh": PACKAGING / "completions" / "zsh" / "_chatd",
    "fish": PACKAGING / "completions" / "fish" / "chatd.fish",
}


def main() -> None:
    """Write all files."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
    for shell, path in COMPLETIONS.items():
        path.write_text(completion_script(shell).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
