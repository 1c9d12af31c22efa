"""`/api/v1/conversations`, and the positions that other calls tell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.service import CHATS, Serve, Service, User

CONVERSATIONS = "/api/v1/conversations/"
READ = "/api/v1/conversations/read/"


def conversations(user: User, query: str = "") -> list[dict[str, Any]]:
    response = user.get(CONVERSATIONS + query)
    assert response.status == 200, response
    found: list[dict[str, Any]] = response.json["conversations"]
    return found


def mark_read(user: User, peer: int, seq: int) -> None:
    response = user.request("PUT", READ, json_body={"user_id": peer, "seq": seq})
    assert (response.status, response.body) == (204, b"")


def test_the_newest_conversation_comes_first(service: Service) -> None:
    ann, bob, cat = service.new_user("ann"), service.new_user("bob"), service.new_user("cat")
    ann.send(bob, "to bob")
    service.advance(1)
    last = cat.send(ann, "from cat")
    assert conversations(ann) == [
        {
            "user_id": cat.id,
            "username": "cat",
            "last_message": last,
            "unread": 1,
            "read": 0,
            "peer_read": 0,
            "peer_delivered": 0,
        },
        {
            "user_id": bob.id,
            "username": "bob",
            "last_message": ann.page(f"?with={bob.id}")["messages"][0],
            "unread": 0,
            "read": 0,
            "peer_read": 0,
            "peer_delivered": 0,
        },
    ]
    service.advance(1)
    bob.send(ann, "from bob")
    assert [each["user_id"] for each in conversations(ann)] == [bob.id, cat.id]
    assert conversations(ann, "") == conversations(ann, "?limit=100")


def test_the_list_is_read_in_parts(service: Service) -> None:
    ann = service.new_user("ann")
    others = [service.new_user() for _ in range(7)]
    for other in others:
        other.send(ann)
        service.advance(1)
    found = []
    query = "?limit=3"
    while True:
        response = ann.get(CONVERSATIONS + query).json
        assert list(response["meta"]) == ["older", "took"]
        found += [each["user_id"] for each in response["conversations"]]
        if response["meta"]["older"] is None:
            break
        query = f"?limit=3&before={response['meta']['older']}"
    assert found == [other.id for other in others[::-1]]


def test_both_spellings_of_the_paths_work(stock: Service) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    bob.send(ann)
    assert conversations(ann) == ann.get(CONVERSATIONS[:-1]).json["conversations"]
    body = {"user_id": bob.id, "seq": 1}
    assert ann.request("PUT", READ[:-1], json_body=body).status == 204
    assert conversations(ann)[0]["read"] == 1


def test_reading_moves_the_position_forward(service: Service) -> None:
    ann, bob, cat = service.new_user(), service.new_user(), service.new_user()
    for number in range(3):
        ann.send(bob, f"{number}")
        cat.send(bob, f"{number}")
    mark_read(bob, ann.id, 4)
    mark_read(bob, ann.id, 2)
    [by_ann] = [each for each in conversations(bob) if each["user_id"] == ann.id]
    assert (by_ann["read"], by_ann["unread"]) == (4, 1)
    # Bob's message 4 is cat's; the last of ann before it is 3. Read implies delivered.
    [to_bob] = conversations(ann)
    assert (to_bob["peer_read"], to_bob["peer_delivered"]) == (3, 3)
    assert conversations(cat)[0]["peer_read"] == 0
    meta = ann.page(f"?with={bob.id}")["meta"]
    assert (meta["peer_read"], meta["peer_delivered"]) == (3, 3)


def test_a_cursor_that_comes_back_proves_delivery(serve: Serve) -> None:
    service = serve("chatd")
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob)
    ann.send(bob)

    def delivered() -> int:
        service.advance(1)
        number: int = conversations(ann)[0]["peer_delivered"]
        assert number == ann.page(f"?with={bob.id}")["meta"]["peer_delivered"]
        return number

    # Bytes were written, and that proves nothing.
    cursor = bob.poll("?since=0&limit=1")["meta"]["cursor"]
    assert delivered() == 0
    bob.poll(f"?since={cursor}")
    assert delivered() == 1
    bob.poll("?since=now")
    bob.page("?limit=1")
    assert delivered() == 1
    # A cursor past the end proves nothing either.
    epoch = cursor.partition("-")[0]
    bob.get(f"{CHATS}?since={epoch}-3").problem(410, "cursor_epoch")
    assert delivered() == 1
    last = bob.page()["meta"]["cursor"]
    bob.wait(f"?since={last}&wait=30")
    assert delivered() == 2


def test_positions_are_written_once_a_second(serve: Serve) -> None:
    service = serve("chatd")
    ann, bob = service.new_user(), service.new_user()
    written = []
    record = service.system.store.sync.record_delivered

    def counted(delivered: Any) -> Any:
        written.append(delivered)
        return record(delivered)

    service.system.store.sync.record_delivered = counted  # type: ignore[method-assign]
    epoch = service.system.store.epoch
    for number in range(1, 21):
        ann.send(bob)
        bob.poll(f"?since={epoch}-{number}")
        bob.poll(f"?since={epoch}-{number}")
        service.advance(0.1)
    service.advance(5)
    assert len(written) == 3
    assert (written[0], written[-1]) == ({bob.id: 1}, {bob.id: 20})
    service.advance(5)
    assert len(written) == 3


def test_a_deleted_peer_has_no_name(service: Service) -> None:
    ann, bob, cat = service.new_user("ann"), service.new_user("bob"), service.new_user("cat")
    last = bob.send(ann, "stays")
    ann.send(bob, "goes")
    ann.send(cat, "goes")
    assert len(conversations(ann)) == 2
    for user in (bob, cat):
        assert user.request("DELETE", "/api/v1/users/").status == 204
    service.settle()
    [found] = conversations(ann)
    assert (found["user_id"], found["username"], found["last_message"]) == (bob.id, None, last)


@pytest.mark.parametrize("query", ["?limit=0", "?limit=101", "?limit=x", "?limit=1&limit=2"])
def test_invalid_queries_are_refused(stock: Service, query: str) -> None:
    stock.new_user().get(CONVERSATIONS + query).problem(400, "invalid_query")


@pytest.mark.parametrize("before", ["", "x", "1", "1.1.1", "01.1", "1.0", "fffffffffffffff.1"])
def test_before_takes_only_what_older_returned(stock: Service, before: str) -> None:
    stock.new_user().get(f"{CONVERSATIONS}?before={before}").problem(400, "invalid_cursor")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"user_id": 2, "seq": 2}, 400, "invalid_body"),
        ({"user_id": 2, "seq": 0}, 400, "invalid_body"),
        ({"user_id": 2}, 400, "invalid_body"),
        ({"user_id": 2, "seq": 1, "more": 1}, 400, "invalid_body"),
        ({"user_id": 4711, "seq": 1}, 404, "user_not_found"),
    ],
)
def test_invalid_positions_are_refused(
    stock: Service, body: dict[str, int], status: int, code: str
) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    bob.send(ann)
    ann.request("PUT", READ, json_body=body).problem(status, code)


def test_both_calls_need_a_session(stock: Service) -> None:
    stock.get(CONVERSATIONS).problem(401, "unauthorized")
    body = {"user_id": 1, "seq": 1}
    stock.request("PUT", READ, json_body=body).problem(401, "unauthorized")


def test_a_list_that_is_too_large_is_cut_and_older_is_right(stock: Service) -> None:
    ann = stock.new_user("ann")
    others = [stock.new_user() for _ in range(15)]
    for other in others:
        other.send(ann, "\x01" * 16_384)
        stock.advance(1)
    first = ann.get(CONVERSATIONS).json
    assert len(first["conversations"]) == 10
    rest = ann.get(f"{CONVERSATIONS}?before={first['meta']['older']}").json
    assert rest["meta"]["older"] is None
    listed = [each["user_id"] for each in first["conversations"] + rest["conversations"]]
    assert listed == [each.id for each in reversed(others)]
