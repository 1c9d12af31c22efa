"""Listing and revoking tokens."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail

from chatd.domain.rate_limits import Rates
from chatd.errors import (
    InsufficientScope,
    RateLimited,
    StoreUnavailable,
    TokenNotFound,
    Unauthorized,
)
from chatd.model import AddedToken, IssuedToken, Scope, Session, TokenOptions
from chatd.rates import Rate
from chatd.store import token_statements
from tests.doubles import SteppedExecutor, System, cancelled_everywhere, composed, result_of

HERE = "192.0.2.1"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system whose threads run inline, with an account."""
    with composed(tmp_path) as system:
        system.account("ann")
        yield system


def log_in(system: System, options: TokenOptions = TokenOptions()) -> IssuedToken:  # noqa: B008
    return system.run(system.accounts.log_in("ann", "password", HERE, options))


def bearer(system: System, issued: IssuedToken) -> Session:
    return system.run(system.accounts.bearer(issued.token.encode("ascii")))


def test_tokens_are_listed_with_their_latest_use(system: System) -> None:
    one = log_in(system, TokenOptions("phone"))
    log_in(system, TokenOptions("never used"))
    bearer(system, one)
    first = system.now()
    system.clock.advance(100)
    session = bearer(system, log_in(system))
    listed, later = system.run(system.tokens.list(session))
    tokens = msgspec.json.decode(listed.text)
    assert [token["label"] for token in tokens] == [None, "never used", "phone"]
    assert [token["current"] for token in tokens] == [True, False, False]
    # The first use is written by now.
    assert listed.last_used_at == [None, None, first]
    assert later == {0: system.now()}


def test_a_token_is_revoked_with_its_polls(system: System) -> None:
    one, two = log_in(system), log_in(system)
    session = bearer(system, one)
    held = system.start(system.chats.poll(session, None, 100, 55))
    system.run(system.tokens.revoke(bearer(system, two), one.stored.id))
    with pytest.raises(Unauthorized):
        result_of(held)
    with pytest.raises(Unauthorized):
        bearer(system, one)
    with pytest.raises(TokenNotFound, match=f"{one.stored.id}"):
        system.run(system.tokens.revoke(bearer(system, two), one.stored.id))


def test_many_that_log_out_at_once_do_not_queue_up(tmp_path: Path) -> None:
    with composed(tmp_path, worker=SteppedExecutor) as system:
        system.account("ann")
        sessions = [bearer(system, log_in(system)) for _ in range(10)]
        system.settle()
        ended = [system.start(system.tokens.log_out(each)) for each in sessions]
        assert system.writer.pending == system.store.parallel - 1
        system.settle()
        assert [result_of(each) for each in ended] == [None] * 10


def test_a_token_without_the_scope_revokes_only_itself(system: System) -> None:
    other = log_in(system)
    limited = log_in(system, TokenOptions(scopes=Scope.READ | Scope.SEND))
    session = bearer(system, limited)
    for refused in (
        system.tokens.revoke(session, other.stored.id),
        system.tokens.revoke(session, 99),
        system.tokens.revoke_others(session),
    ):
        with pytest.raises(InsufficientScope):
            system.run(refused)
    system.run(system.tokens.revoke(session, limited.stored.id))
    with pytest.raises(Unauthorized):
        bearer(system, limited)
    bearer(system, other)


@pytest.mark.parametrize("verb", ["delete_token_by_id", "delete_other_tokens"])
def test_a_failed_revocation_may_have_been_committed(
    system: System, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    one, two = log_in(system), log_in(system)
    held = system.start(system.chats.poll(bearer(system, one), None, 100, 55))
    session = bearer(system, two)
    commit = getattr(system.store, verb)

    def fail_after_commit(*arguments: object) -> Deferred[object]:
        result_of(commit(*arguments))
        return fail(StoreUnavailable("the disk", 1))

    monkeypatch.setattr(system.store, verb, fail_after_commit)
    with pytest.raises(StoreUnavailable):
        system.run(
            system.tokens.revoke(session, one.stored.id)
            if verb == "delete_token_by_id"
            else system.tokens.revoke_others(session)
        )
    with pytest.raises(Unauthorized):
        result_of(held)
    with pytest.raises(Unauthorized):
        bearer(system, one)


def test_a_log_in_beyond_the_bound_ends_the_token_used_longest_ago(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_statements, "MAX_TOKENS", 2)
    one, two = log_in(system), log_in(system)
    bearer(system, two)
    system.clock.advance(10)
    held = [
        system.start(system.chats.poll(bearer(system, each), None, 100, 55)) for each in (one, two)
    ]
    # The uses are written.
    system.clock.advance(10)
    three = log_in(system)
    with pytest.raises(Unauthorized):
        result_of(held[1])
    assert not held[0].called
    with pytest.raises(Unauthorized):
        bearer(system, two)
    for each in (one, three):
        bearer(system, each)


def test_a_failed_log_in_may_have_ended_a_token(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_statements, "MAX_TOKENS", 1)
    one = log_in(system)
    held = system.start(system.chats.poll(bearer(system, one), None, 100, 55))
    commit = system.store.add_token

    def fail_after_commit(*arguments: Any) -> Deferred[AddedToken | None]:
        result_of(commit(*arguments))
        return fail(StoreUnavailable("the disk", 1))

    monkeypatch.setattr(system.store, "add_token", fail_after_commit)
    with pytest.raises(StoreUnavailable):
        log_in(system)
    with pytest.raises(Unauthorized):
        result_of(held)


@pytest.mark.parametrize("what", ["log out", "revoke", "revoke others", "delete"])
def test_what_the_queue_of_the_store_refuses_ends_nothing(tmp_path: Path, what: str) -> None:
    # The poll takes the only read that there is.
    with composed(tmp_path, rates=Rates(read=Rate(1, 0.001))) as system:
        system.account("ann")
        one = log_in(system)
        session = bearer(system, one)
        held = system.start(system.chats.poll(session, None, 100, 55))
        calls: dict[str, Callable[[], Coroutine[Deferred[Any], Any, object]]] = {
            "log out": lambda: system.tokens.log_out(session),
            "revoke": lambda: system.tokens.revoke(Session(session.user_id), one.stored.id),
            "revoke others": lambda: system.tokens.revoke_others(Session(session.user_id)),
            "delete": lambda: system.accounts.delete(session),
        }
        with pytest.raises(RateLimited):
            system.run(calls[what]())
        assert not held.called
        assert bearer(system, one) == session


@pytest.mark.parametrize("others", [True, False])
def test_a_revocation_completes_even_if_its_client_disconnects(
    tmp_path: Path, others: bool
) -> None:
    issued: list[IssuedToken] = []

    def begin(system: System) -> Deferred[None]:
        system.account("ann")
        issued[:] = [log_in(system), log_in(system)]
        session = bearer(system, issued[1])
        bearer(system, issued[0])
        return Deferred.fromCoroutine(
            system.tokens.revoke_others(session)
            if others
            else system.tokens.revoke(session, issued[0].stored.id)
        )

    moments = 0
    for system in cancelled_everywhere(tmp_path, begin):
        with pytest.raises(Unauthorized):
            bearer(system, issued[0])
        bearer(system, issued[1])
        moments += 1
    assert moments >= 2
