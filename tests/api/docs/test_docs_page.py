"""The documentation page."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest

from chatd.api.api import API
from chatd.api.docs import docs_page
from chatd.api.error_codes import ERROR_CODES


class Ids(HTMLParser):
    """The anchors and links of a page; fails on elements that are not closed."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if given.get("href"):
            self.links.append(str(given["href"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_an_anchor_for_every_error_and_every_call() -> None:
    page = docs_page.describe(API.calls).page.file
    reader = Ids()
    reader.feed(page.body.decode())
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    calls = {call.name for call in API.calls if call.documented}
    assert ERROR_CODES.keys() | calls <= set(reader.ids)
    inside = {link[1:] for link in reader.links if link.startswith("#")}
    assert inside <= set(reader.ids)
    assert {link for link in reader.links if "//" in link} == set(), "a link to another site"


@pytest.mark.parametrize("name", [name for _, name in docs_page.EXAMPLES])
def test_the_page_shows_the_examples_that_are_tested(name: str) -> None:
    page = docs_page.describe(API.calls).page.file.body.decode()
    assert html.escape(docs_page.example(name)) in page
