"""The examples in README.md and docs/."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tests.daemon import ROOT

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """A fenced block of a document."""

    section: str
    language: str
    text: str


def examples(name: str) -> list[Example]:
    """The fenced blocks of a document, with their headings."""
    found = []
    document = (ROOT / name).read_text()
    for section in re.split(r"^(?=##+ )", document, flags=re.MULTILINE):
        heading = section.partition("\n")[0].lstrip("# ")
        found += [Example(heading, *block) for block in _FENCE.findall(section)]
    return found


def example(name: str, section: str, language: str) -> str:
    """The first block in that language under a heading."""
    return next(
        each.text for each in examples(name) if (each.section, each.language) == (section, language)
    )
