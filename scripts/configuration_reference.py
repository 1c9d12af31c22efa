"""Writes docs/configuration.md, the reference of the daemon's settings, from `chatd.config`."""

from pathlib import Path

from chatd.config import OPTIONS, Option

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

SOURCES = """\
Each setting is an option of the command line, an environment variable, and a key of the TOML file
that `--config` or `CHATD_CONFIG` names; they take precedence in this order. An unknown key of the
file is an error, an unknown variable a warning. SIGHUP has a running daemon take those that are
reloadable; it names others that have changed.
"""
"""Where settings come from; also in chatd.toml(5)."""

HEAD = f"""\
# Settings of the daemon

Written by `scripts/configuration_reference.py`; do not edit.

{SOURCES}
| option and key | environment | default | reloadable | meaning |
| --- | --- | --- | --- | --- |
"""


def row(option: Option) -> str:
    """The row of an option."""
    cells = [
        f"`--{option.name}`",
        f"`{option.variable}`",
        f"`{option.default_text}`" if option.default_text else "none",
        "yes" if option.reloadable else "",
        option.help.replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def reference() -> str:
    """The whole document."""
    return HEAD + "".join(f"{row(option)}\n" for option in OPTIONS)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
