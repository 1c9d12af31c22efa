"""What administrators do with accounts: sessions end, and what others see."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from chatd.domain.administration import (
    REQUESTS,
    AddUser,
    Administration,
    DeleteUser,
    DisableUser,
    EnableUser,
    ListTokens,
    ListUsers,
    Reply,
    Request,
    RevokeTokens,
    SetPassword,
    ShowUser,
)
from chatd.domain.erasures import LOOK_SECONDS
from chatd.domain.last_seen import LAST_SEEN_FLUSH_SECONDS
from chatd.errors import (
    AccountDisabled,
    InvalidBody,
    StoreUnavailable,
    TokenNotFound,
    Unauthorized,
    UsernameTaken,
    UserNotFound,
)
from chatd.model import Cursor, ReadAfter
from tests.doubles import System, cheap_hasher, fired, result_of

ADDRESS = "198.51.100.1"


@pytest.fixture(autouse=True)
def _times_of_use_are_written(system: System) -> Iterator[None]:
    yield
    system.clock.advance(LAST_SEEN_FLUSH_SECONDS)


def perform(system: System, request: Request) -> Reply:
    """Perform a request as it comes through the socket."""
    decoded = REQUESTS.decode(msgspec.json.encode(request))
    assert decoded == request
    return system.run(Administration(system.store, system.bus).perform(decoded))


def log_in(system: System, name: str, password: str = "password") -> bytes:
    issued = system.run(system.accounts.log_in(name, password, ADDRESS))
    return issued.token.encode()


def test_accounts_are_added_and_listed(system: System) -> None:
    hashed = cheap_hasher().hash("secret")
    added = perform(system, AddUser("ann", "ann@example.org", hashed))
    assert added == perform(system, ShowUser("ANN"))
    bob = perform(system, AddUser("bob", "bob@example.org", hashed))
    assert perform(system, ListUsers(0, 10)).users == [*added.users, *bob.users]
    assert perform(system, ListUsers(1, 10)).users == bob.users
    log_in(system, "ann", "secret")
    with pytest.raises(UsernameTaken):
        perform(system, AddUser("Ann", "ann@example.org", hashed))
    for name, email in [("a b", "a@example.org"), ("cat", "nobody")]:
        with pytest.raises(InvalidBody):
            perform(system, AddUser(name, email, hashed))


@pytest.mark.parametrize(
    "request_",
    [
        ShowUser("nobody"),
        SetPassword("nobody", "hash"),
        DisableUser("nobody"),
        EnableUser("nobody"),
        DeleteUser("nobody"),
        ListTokens("nobody"),
        RevokeTokens("nobody", None),
    ],
)
def test_an_unknown_name_is_an_error(system: System, request_: Request) -> None:
    with pytest.raises(UserNotFound, match="nobody"):
        perform(system, request_)


@pytest.mark.parametrize(
    "request_",
    [
        SetPassword("ann", cheap_hasher().hash("new")),
        DisableUser("ann"),
        DeleteUser("ann"),
        RevokeTokens("ann", None),
        RevokeTokens("ann", 1),
    ],
)
def test_polls_and_tokens_end_at_once(system: System, request_: Request) -> None:
    ann, bob = system.account("ann"), system.account("bob")
    token, other = log_in(system, "ann"), log_in(system, "bob")
    session = system.run(system.accounts.bearer(token))
    assert (session.user_id, session.token_id) == (ann.id, 1)
    bobs = system.run(system.accounts.bearer(other))
    poll = system.start(system.chats.poll(session, Cursor("", 0), 10, 30.0))
    bobs_poll = system.start(system.chats.poll(bobs, Cursor("", 0), 10, 30.0))
    perform(system, request_)
    with pytest.raises(Unauthorized):
        result_of(poll)
    with pytest.raises(Unauthorized):
        system.run(system.accounts.bearer(token))
    assert not fired(bobs_poll)
    assert system.run(system.accounts.bearer(other)).user_id == bob.id
    perform(system, DeleteUser("bob"))
    with pytest.raises(Unauthorized):
        result_of(bobs_poll)


@pytest.mark.parametrize("request_", [SetPassword("ann", "other"), DisableUser("ann")])
def test_polls_with_a_password_end_at_once(system: System, request_: Request) -> None:
    system.account("ann")
    session = system.run(system.accounts.basic("ann", "password", ADDRESS))
    poll = system.start(system.chats.poll(session, Cursor("", 0), 10, 30.0))
    perform(system, RevokeTokens("ann", None))
    assert not fired(poll)
    perform(system, request_)
    with pytest.raises(Unauthorized):
        result_of(poll)
    with pytest.raises(Unauthorized):
        system.run(system.accounts.basic("ann", "password", ADDRESS))


def test_only_the_right_password_tells_that_the_account_is_disabled(system: System) -> None:
    system.account("ann")
    assert perform(system, DisableUser("Ann")).users[0].disabled_at == system.now()
    with pytest.raises(AccountDisabled):
        system.run(system.accounts.log_in("ann", "password", ADDRESS))
    with pytest.raises(AccountDisabled):
        system.run(system.accounts.basic("ann", "password", ADDRESS))
    for call in (system.accounts.log_in, system.accounts.basic):
        with pytest.raises(Unauthorized) as caught:
            system.run(call("ann", "wrong", ADDRESS))
        assert type(caught.value) is Unauthorized
    assert perform(system, EnableUser("ann")).users[0].disabled_at is None
    log_in(system, "ann")
    system.run(system.accounts.basic("ann", "password", ADDRESS))


def test_one_token_is_revoked_and_the_others_stay(system: System) -> None:
    system.account("ann")
    one, two = log_in(system, "ann"), log_in(system, "ann")
    sessions = [system.run(system.accounts.bearer(each)) for each in (one, two)]
    polls = [system.start(system.chats.poll(each, Cursor("", 0), 10, 30.0)) for each in sessions]
    tokens = perform(system, ListTokens("ann")).tokens
    assert [each.id for each in tokens] == [2, 1]
    assert tokens[0].scopes == ["read", "send", "account"]
    perform(system, RevokeTokens("ann", 1))
    assert [fired(poll) for poll in polls] == [True, False]
    with pytest.raises(Unauthorized):
        result_of(polls[0])
    with pytest.raises(TokenNotFound):
        perform(system, RevokeTokens("ann", 1))
    perform(system, RevokeTokens("ann", None))
    with pytest.raises(Unauthorized):
        result_of(polls[1])


def test_a_failed_request_is_announced(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been committed nevertheless."""
    ann = system.account("ann")
    announced: list[int] = []
    monkeypatch.setattr(system.bus, "publish_sessions_changed", announced.append)
    system.store._write_db.execute("PRAGMA query_only = ON")
    for request in (DisableUser("ann"), SetPassword("ann", "hash"), RevokeTokens("ann", None)):
        with pytest.raises(StoreUnavailable):
            perform(system, request)
    assert announced == [ann.id] * 3
    system.store._write_db.execute("PRAGMA query_only = OFF")
    system.wait_for(system.store.check())


def test_what_a_deleted_account_has_sent_is_erased_by_the_daemon(system: System) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    for sender in (ann, bob):
        system.send(sender, bob.user_id, "hai")
    system.components.erasures.start()
    perform(system, DeleteUser("ann", erase=True))
    system.clock.advance(LOOK_SECONDS)
    [inbox] = system.wait_for(system.store.read([ReadAfter(bob.user_id, 0, 10)]))
    assert inbox is not None
    assert [message.text for message in inbox.messages] == ["", "hai"]
