"""Pages of the inbox (contract, `GET /chats/`)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chatd.api.chats_read import PageMeta
from chatd.domain.chats import Page
from chatd.model import Cursor, Draft
from tests.api.service import CHATS, Service, User, texts

LINK = re.compile(r'</api/v1/chats/(\?[^>]*)>; rel="(next|prev)"')


@pytest.fixture
def service(either: Service) -> Service:
    """These calls take the fast path, or not."""
    return either


def fill(service: Service, to: User, count: int, sent_by: int | None = None) -> None:
    """Messages `hai 1` … in the inbox, a second apart."""
    for number in range(1, count + 1):
        draft = Draft(sent_by or to.id, to.id, f"hai {number}")
        service.system.wait_for(service.system.store.append([draft]))
        service.clock.advance(1)


def links(user: User, query: str) -> dict[str, str]:
    """The targets of the Link header by relation."""
    header = user.get(CHATS + query).header("Link")
    if header is None:
        return {}
    found = {relation: target for target, relation in LINK.findall(header)}
    assert len(found) == len(header.split(", "))
    return found


def follow_pages(user: User, query: str) -> list[str]:
    """All messages from a page on, along the `next` links."""
    seen = texts(user.page(query))
    while "next" in (found := links(user, query)):
        query = found["next"]
        seen += texts(user.page(query))
    return seen


def test_an_inbox_of_13_is_paged_as_in_the_seed(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    fill(service, ann, 13, bob.id)
    response = ann.get("/api/v1/chats")
    page = response.json
    assert list(page) == ["meta", "messages"]
    names = ["count", "next", "current_page", "took", "previous", "cursor"]
    assert list(page["meta"]) == names
    cursor = page["meta"].pop("cursor")
    assert isinstance(cursor, str)
    assert page["meta"] == {
        "count": 13,
        "next": 2,
        "current_page": "1",
        "took": 0,
        "previous": None,
    }
    assert texts(page) == [f"hai {number}" for number in range(13, 3, -1)]
    assert list(page["messages"][0]) == ["seq", "sent_by", "message", "sent_at", "received_by"]
    assert page["messages"][0] == {
        "seq": 13,
        "sent_by": 2,
        "message": "hai 13",
        "sent_at": "2026-01-01T00:00:12Z",
        "received_by": 1,
    }
    assert response.header("Content-Type") == "application/json"
    assert response.header("Cache-Control") == "no-store"


@pytest.mark.parametrize(
    ("page", "pages", "following", "previous"),
    [(1, 0, None, None), (1, 1, None, None), (1, 2, 2, None), (2, 3, 3, 1), (3, 3, None, 2)],
)
def test_the_meta_of_a_page_names_its_neighbours(
    page: int, pages: int, following: int | None, previous: int | None
) -> None:
    meta = PageMeta.of(Page(page, pages, 10, 12, Cursor("abcdefgh", 13, 255), ()), 0.0109, 10)
    assert (meta.next, meta.previous) == (following, previous)
    assert (meta.current_page, meta.count, meta.took) == (str(page), 12, 10)
    assert meta.cursor == "abcdefgh-13-ff"


def test_the_last_page_has_the_rest(service: Service) -> None:
    ann = service.new_user()
    fill(service, ann, 13)
    page = ann.page("?page=2")
    assert texts(page) == ["hai 3", "hai 2", "hai 1"]
    assert (page["meta"]["next"], page["meta"]["previous"]) == (None, 1)
    assert page["meta"]["current_page"] == "2"


def test_an_empty_inbox_has_a_first_page(service: Service) -> None:
    ann = service.new_user()
    for query in ("", "?page=1", "?page=01", "?limit=1"):
        page = ann.page(query)
        assert page["messages"] == []
        assert page["meta"]["count"] == 0
        assert (page["meta"]["next"], page["meta"]["previous"]) == (None, None)
        assert page["meta"]["current_page"] == "1"
    assert ann.get(CHATS).header("Link") is None


@pytest.mark.parametrize(
    "page", ["2", "3", "100", "9007199254740991", "9007199254740992", "9" * 500]
)
def test_past_the_end_there_is_no_page(service: Service, page: str) -> None:
    ann = service.new_user()
    ann.get(f"{CHATS}?page={page}").problem(404, "page_not_found")
    fill(service, ann, 10)
    ann.get(f"{CHATS}?page={page}").problem(404, "page_not_found")


NOT_WHOLE = [
    *("", "0", "00", "-1", "1.0", "1.5", "1e1", "%201", "1%20", "%2B1", "+1", "1_000", "0x10"),
    *("abc", "%D9%A1", "%EF%BC%91", "%FF", "%00", "1%0A", "1,2", "%F0%9D%9F%8F", "NaN", "-0"),
]


@pytest.mark.parametrize("value", NOT_WHOLE)
def test_a_page_and_a_limit_are_plain_digits(stock: Service, value: str) -> None:
    ann = stock.new_user()
    for query in (f"?page={value}", f"?limit={value}", f"?since=0&limit={value}"):
        ann.get(CHATS + query).problem(400, "invalid_query")


@pytest.mark.parametrize("value", ["101", "1000", "9" * 400, "9" * 5000])
def test_a_limit_is_at_most_100(stock: Service, value: str) -> None:
    ann = stock.new_user()
    ann.get(f"{CHATS}?limit={value}").problem(400, "invalid_query")
    ann.get(f"{CHATS}?since=0&limit={value}").problem(400, "invalid_query")


def test_a_page_may_have_leading_zeros(stock: Service) -> None:
    ann = stock.new_user()
    fill(stock, ann, 11)
    page = ann.page("?page=" + "0" * 30 + "2")
    assert (texts(page), page["meta"]["current_page"]) == (["hai 1"], "2")


def test_a_parameter_is_given_once(stock: Service) -> None:
    ann = stock.new_user()
    for query in ("?page=1&page=1", "?limit=1&limit=2", "?at=x&at=x"):
        ann.get(CHATS + query).problem(400, "invalid_query")


def test_unknown_parameters_are_ignored(stock: Service) -> None:
    ann = stock.new_user()
    for query in ("?x=1", "?%FF=%FF", "?&&&", "?=", "?pages=0", "?Page=0", "?a[]=1;b=2", "?\\"):
        assert ann.get(CHATS + query).status == 200


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_a_limit_sets_the_size_of_a_page(stock: Service, limit: int) -> None:
    ann = stock.new_user()
    fill(stock, ann, 9)
    expected = [f"hai {number}" for number in range(9, 0, -1)]
    pages = -(-9 // limit)
    seen: list[str] = []
    for number in range(1, pages + 1):
        page = ann.page(f"?page={number}&limit={limit}")
        seen += texts(page)
        assert page["meta"]["next"] == (number + 1 if number < pages else None)
        assert page["meta"]["previous"] == (number - 1 if number > 1 else None)
        assert page["meta"]["count"] == 9
    assert seen == expected
    ann.get(f"{CHATS}?page={pages + 1}&limit={limit}").problem(404, "page_not_found")


def test_links_are_pinned_to_the_snapshot(service: Service) -> None:
    ann = service.new_user()
    fill(service, ann, 25)
    cursor = ann.page()["meta"]["cursor"]
    assert links(ann, "") == {"next": f"?page=2&limit=10&at={cursor}"}
    assert links(ann, "?page=2") == {
        "next": f"?page=3&limit=10&at={cursor}",
        "prev": f"?page=1&limit=10&at={cursor}",
    }
    assert links(ann, "?page=3&limit=10") == {"prev": f"?page=2&limit=10&at={cursor}"}


def test_pages_do_not_drift_while_messages_arrive(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    fill(service, ann, 25)
    query = "?limit=4"
    seen = texts(ann.page(query))
    while "next" in (found := links(ann, query)):
        for _ in range(3):
            bob.send(ann, "new")
        query = found["next"]
        page = ann.page(query)
        assert page["meta"]["count"] == 25
        seen += texts(page)
    assert seen == [f"hai {number}" for number in range(25, 0, -1)]
    back: list[str] = []
    while "prev" in (found := links(ann, query)):
        query = found["prev"]
        back = texts(ann.page(query)) + back
    assert back == seen[: len(back)]
    assert len(back) == 24


def test_the_cursor_of_a_page_gives_exactly_what_came_after(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    fill(service, ann, 3)
    first = ann.page()
    bob.send(ann, "after 1")
    deep = ann.page(f"?page=2&limit=1&at={first['meta']['cursor']}")
    bob.send(ann, "after 2")
    assert deep["meta"]["cursor"] == first["meta"]["cursor"]
    assert texts(ann.poll(f"?since={first['meta']['cursor']}")) == ["after 1", "after 2"]


def test_every_pinned_page_of_one_answer_is_of_one_inbox(service: Service) -> None:
    ann = service.new_user()
    fill(service, ann, 12)
    assert follow_pages(ann, "?limit=5") == [f"hai {number}" for number in range(12, 0, -1)]


def test_an_inbox_may_be_pinned_at_its_beginning(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor = ann.page()["meta"]["cursor"]
    bob.send(ann)
    page = ann.page(f"?at={cursor}")
    assert (page["messages"], page["meta"]["count"]) == ([], 0)
    ann.get(f"{CHATS}?at={cursor}&page=2").problem(404, "page_not_found")


def test_a_pin_beyond_the_inbox_is_of_another_history(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    bob.send(ann)
    cursor = ann.page()["meta"]["cursor"]
    bob.get(f"{CHATS}?at={cursor}").problem(410, "cursor_epoch")
    other = re.sub("^[a-z2-7]+", "a" * 16, cursor)
    ann.get(f"{CHATS}?at={other}").problem(410, "cursor_epoch")


@pytest.mark.parametrize(
    "at", ["", "0", "now", "1", "x-1", "%00", "%FF", "aaaaaaaa-01", "A" * 9 + "-1"]
)
def test_a_malformed_pin_is_refused(stock: Service, at: str) -> None:
    response = stock.new_user().get(f"{CHATS}?at={at}")
    assert response.status == 400


def test_the_last_of_many_pages_is_found(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = service.new_user()
    fill(service, ann, 120)
    page = ann.page("?page=120&limit=1")
    assert texts(page) == ["hai 1"]
    assert page["meta"]["next"] is None


def test_a_page_shows_only_the_callers_inbox(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob, "for bob")
    assert texts(ann.page()) == []
    assert texts(bob.page()) == ["for bob"]


def test_a_page_is_not_combined_with_waiting(stock: Service) -> None:
    ann = stock.new_user()
    for query in ("?page=1&since=0", "?page=1&wait=1", "?at=x&since=0", "?at=x&wait=1"):
        ann.get(CHATS + query).problem(400, "invalid_query")


def test_took_is_whole_milliseconds_of_work(service: Service, monkeypatch: Any) -> None:
    ann = service.new_user()
    poll = ann.wait("?wait=10")
    service.advance(4.5)
    ann.send(ann)
    meta = poll.response.json["meta"]
    assert (meta["waited"], meta["took"]) == (4500, 0)
    assert type(ann.page()["meta"]["took"]) is int


WIDE = "\x01" * 16_384
"""Six bytes each in JSON."""


def fill_wide(service: Service, to: User, count: int) -> None:
    """Messages that are as large in JSON as they get."""
    for _ in range(count):
        draft = Draft(to.id, to.id, WIDE)
        service.system.wait_for(service.system.store.append([draft]))


def test_a_page_of_ten_is_never_cut(service: Service) -> None:
    ann = service.new_user()
    fill_wide(service, ann, 12)
    page = ann.page("?limit=10")
    assert [message["seq"] for message in page["messages"]] == list(range(12, 2, -1))
    assert "limit" not in page["meta"]


@pytest.mark.parametrize(("limit", "smaller"), [(100, 20), (24, 12), (23, 1), (33, 11)])
def test_a_larger_page_is_cut_and_its_neighbours_are_right(
    service: Service, limit: int, smaller: int
) -> None:
    ann = service.new_user()
    fill_wide(service, ann, 45)
    seqs: list[int] = []
    query = f"?limit={limit}"
    while True:
        page = ann.page(query)
        assert len(page["messages"]) <= smaller
        seqs += [message["seq"] for message in page["messages"]]
        meta = page["meta"]
        if meta["next"] is None:
            break
        assert meta.get("limit", smaller) == smaller
        following = links(ann, query)["next"]
        assert following.startswith(f"?page={meta['next']}&limit={smaller}&at=")
        query = following
    assert seqs == list(range(45, 0, -1))


def test_a_later_page_is_cut_at_its_own_place(service: Service) -> None:
    ann = service.new_user()
    fill_wide(service, ann, 50)
    page = ann.page("?limit=24&page=2")
    assert [message["seq"] for message in page["messages"]] == list(range(26, 14, -1))
    meta = page["meta"]
    assert (meta["current_page"], meta["limit"], meta["next"], meta["previous"]) == ("3", 12, 4, 2)


def test_a_page_of_the_largest_texts_is_not_cut(service: Service) -> None:
    """A client that counts pages of a hundred must not be given half of them."""
    ann = service.new_user()
    for _ in range(100):
        draft = Draft(ann.id, ann.id, "lorem ipsum\n" * 1365)
        service.system.wait_for(service.system.store.append([draft]))
    page = ann.page("?limit=100")
    assert len(page["messages"]) == 100
    assert (page["meta"]["next"], "limit" in page["meta"]) == (None, False)


def test_a_page_that_fits_is_not_cut(service: Service) -> None:
    ann = service.new_user()
    fill_wide(service, ann, 3)
    fill(service, ann, 97)
    assert len(ann.page("?limit=100")["messages"]) == 100


def test_a_hundred_of_the_largest_messages_fit_unless_much_is_escaped(service: Service) -> None:
    ann = service.new_user()
    text = ("x" * 7 + '"') * (len(WIDE) // 8)
    for _ in range(100):
        service.system.wait_for(service.system.store.append([Draft(ann.id, ann.id, text)]))
    page = ann.page("?limit=100")
    assert len(page["messages"]) == 100
    assert "limit" not in page["meta"]
