"""A session with the client that openapi-python-client makes: `session.py URL`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

from chatd_client import AuthenticatedClient, Client
from chatd_client.api.chats import delete_message, edit_message, get_chats, send
from chatd_client.api.conversations import list_conversations, mark_read
from chatd_client.api.operations import healthz, readyz
from chatd_client.api.tokens import get_tokens, log_in, log_out
from chatd_client.api.users import get_user, register
from chatd_client.models import (
    ChangedChange,
    Conversation,
    ConversationsList,
    Edit,
    Health,
    LogIn,
    MarkRead,
    Message,
    Page,
    Poll,
    Readiness,
    Registration,
    Send,
    SendResponse404,
    SendWaitFor,
    SentMessage,
    Token,
    TokenList,
    User,
)

T = TypeVar("T")


def expect(kind: type[T], value: object) -> T:
    """The value, which must be of this kind."""
    assert isinstance(value, kind), value
    return value


def account(url: str, name: str) -> tuple[User, AuthenticatedClient]:
    """Register and log in."""
    client = Client(url, raise_on_unexpected_status=True)
    registration = Registration(username=name, email=f"{name}@example.org", password="secret")
    user = expect(User, register.sync(client=client, body=registration))
    body = LogIn(username=name, password="secret", label="generated")
    token = expect(Token, log_in.sync(client=client, body=body))
    assert token.label == "generated"
    return user, AuthenticatedClient(url, token.token, raise_on_unexpected_status=True)


def main(url: str) -> None:
    anonymous = Client(url)
    assert expect(Health, healthz.sync(client=anonymous)).status == "ok"
    assert expect(Readiness, readyz.sync(client=anonymous)).status == "ready"

    ann, as_ann = account(url, "ann")
    bob, as_bob = account(url, "bob")
    assert expect(User, get_user.sync(client=as_ann)) == expect(
        User, get_user.sync(client=as_bob, username="Ann")
    )

    # Send and read.
    hai = Send(user_id=bob.id, message="hai")
    first = expect(SentMessage, send.sync(client=as_ann, body=hai, idempotency_key="one"))
    replayed = send.sync_detailed(client=as_ann, body=hai, idempotency_key="one")
    assert (replayed.status_code, replayed.parsed) == (200, first)
    assert expect(Page, get_chats.sync(client=as_bob)).messages[0].message == "hai"
    assert expect(Page, get_chats.sync(client=as_bob, page=1, limit=5)).meta.count == 1
    poll = expect(Poll, get_chats.sync(client=as_bob, since="0", wait=0))
    assert [each.message for each in poll.messages] == ["hai"]

    # A poll that waits, and one that waits in vain.
    with ThreadPoolExecutor() as pool:
        held = pool.submit(
            get_chats.sync, client=as_bob, since=poll.meta.cursor, wait=20.5, changes=False
        )
        waited = send.sync(
            client=as_ann,
            body=Send(user_id=bob.id, message="how are you?"),
            wait_for=SendWaitFor.DELIVERED,
            wait=0.5,
        )
        second = expect(SentMessage, waited)
        poll = expect(Poll, held.result())
    assert [each.message for each in poll.messages] == ["how are you?"]
    began = monotonic()
    empty = expect(Poll, get_chats.sync(client=as_bob, since=poll.meta.cursor, wait=0.25))
    assert empty.meta.timed_out
    assert monotonic() - began >= 0.25

    # Conversations.
    listed = expect(ConversationsList, list_conversations.sync(client=as_bob))
    [item] = listed.conversations
    assert (item.username, item.unread, item.last_message.message) == ("ann", 2, "how are you?")
    read = MarkRead(user_id=ann.id, seq=second.seq)
    assert mark_read.sync_detailed(client=as_bob, body=read).status_code == 204
    talk = expect(Conversation, get_chats.sync(client=as_ann, with_=bob.id))
    assert talk.meta.peer_read == second.seq

    # Edit, delete and changes.
    beginning = expect(Poll, get_chats.sync(client=as_bob, since="now", changes=True))
    edit = Edit(user_id=bob.id, seq=first.seq, message="hello")
    edited = expect(Message, edit_message.sync(client=as_ann, body=edit))
    assert edited.message == "hello"
    assert edited.edited_at
    gone = delete_message.sync_detailed(client=as_ann, user_id=bob.id, seq=second.seq)
    assert gone.status_code == 204
    since = beginning.meta.cursor
    poll = expect(Poll, get_chats.sync(client=as_bob, since=since, changes=True, wait=20))
    assert isinstance(poll.changes, list)
    changed = [expect(ChangedChange, each).message for each in poll.changes]
    assert [(each.seq, each.message) for each in changed] == [(1, "hello"), (2, "")]
    assert changed[1].deleted_at

    # Errors.
    nobody = send.sync_detailed(client=as_ann, body=Send(user_id=99, message="hai"))
    assert nobody.status_code == 404
    assert expect(SendResponse404, nobody.parsed).code.value == "user_not_found"
    for status, response in (
        (400, get_chats.sync_detailed(client=as_ann, page=1, since="0")),
        (401, get_chats.sync_detailed(client=AuthenticatedClient(url, "wrong"))),
        (410, get_chats.sync_detailed(client=as_ann, since="aaaaaaaaaaaaaaaa-1")),
    ):
        assert response.status_code == status
        assert response.parsed is not None

    tokens = expect(TokenList, get_tokens.sync(client=as_ann)).tokens
    assert [each.current for each in tokens] == [True]
    assert log_out.sync_detailed(client=as_ann).status_code == 204
    assert get_tokens.sync_detailed(client=as_ann).status_code == 401


main(sys.argv[1])
