"""The API description as a page for people."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest

from chatd.api.api import API
from chatd.api.docs import docs_page
from chatd.api.docs.operations import OPERATIONS
from chatd.api.error_codes import ERRORS


class Ids(HTMLParser):
    """The anchors of a page and where its links go; fails on markup that is not closed."""

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
    page = docs_page.description(API.app).page
    reader = Ids()
    reader.feed(page.body.decode())
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert ERRORS.keys() | OPERATIONS.keys() <= set(reader.ids)
    inside = {link[1:] for link in reader.links if link.startswith("#")}
    assert inside <= set(reader.ids)
    assert {link for link in reader.links if "//" in link} == set(), "a link to somewhere else"


@pytest.mark.parametrize("name", [name for _, name in docs_page.EXAMPLES])
def test_the_page_shows_the_examples_as_they_are_run(name: str) -> None:
    page = docs_page.description(API.app).page.body.decode()
    assert html.escape(docs_page.example(name)) in page
