"""Registration, log-in, authentication, revocation and deletion of accounts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, gatherResults

from chatd.domain.accounts import TOKEN_CACHE_SECONDS, TOKEN_PREFIX
from chatd.domain.basic_sessions import BASIC_CACHE_SECONDS
from chatd.domain.last_seen import LAST_SEEN_FLUSH_SECONDS
from chatd.domain.passwords import MAX_PENDING_OF_ADDRESS, THREADS
from chatd.domain.rate_limits import Rates
from chatd.errors import (
    InvalidBody,
    NotAToken,
    Overloaded,
    RateLimited,
    RegistrationClosed,
    StoreUnavailable,
    Unauthorized,
    UsernameTaken,
    UserNotFound,
)
from chatd.model import Account, IssuedToken, Session
from chatd.rates import Rate
from chatd.runtime.slices import SLICE_SECONDS
from tests.doubles import SteppedExecutor, System, cancel, cancelled_everywhere, composed, result_of

HERE = "192.0.2.1"
CALLER = Session(1)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system whose threads run inline; timers of what it has recorded may be left."""
    with composed(tmp_path) as system:
        yield system


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[System]:
    """A system whose threads the test steps."""
    with composed(tmp_path, worker=SteppedExecutor) as system:
        yield system


def register(system: System, name: str, email: str = "a@b", password: str = "secret") -> Account:
    return system.run(system.accounts.register(name, email, password, HERE))


def log_in(system: System, name: str, password: str = "password") -> IssuedToken:
    return system.run(system.accounts.log_in(name, password, HERE))


def bearer(system: System, issued: IssuedToken) -> Session:
    return system.run(system.accounts.bearer(issued.token.encode("ascii")))


def basic(system: System, name: str, password: str = "password") -> Session:
    return system.run(system.accounts.basic(name, password, HERE))


# Registration


def test_a_registered_account_can_log_in(system: System) -> None:
    account = register(system, "Ann", "ann@example.org", "secret")
    assert account == Account(1, "Ann", "ann@example.org", system.now(), None)
    assert log_in(system, "ann", "secret").user_id == 1
    assert basic(system, "ANN", "secret").user_id == 1


def test_registration_can_be_closed(tmp_path: Path) -> None:
    with composed(tmp_path, registration_open=False) as system:
        with pytest.raises(RegistrationClosed):
            register(system, "ann")
        assert system.wait_for(system.store.account_named("ann")) is None


@pytest.mark.parametrize("name", ["a", "x" * 32, "A.b_C-9", "007", "-", "...", "_"])
def test_usernames_consist_of_certain_ascii_characters(system: System, name: str) -> None:
    assert register(system, name).username == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 33, "a b", "a\n", "é", "a@b", "a/b", "a%", "\uff41", "a\0", "\ud800", "ann\u200b"],
)
def test_other_usernames_are_refused(system: System, name: str) -> None:
    with pytest.raises(InvalidBody, match="username"):
        register(system, name)


def test_usernames_are_unique_regardless_of_case(system: System) -> None:
    register(system, "ann")
    with pytest.raises(UsernameTaken):
        register(system, "ANN")


@pytest.mark.parametrize("email", ["a@b", "x" * 252 + "@b", "a b@ü", "'\"@x.example"])
def test_email_addresses_contain_one_at_sign(system: System, email: str) -> None:
    assert register(system, "ann", email).email == email


@pytest.mark.parametrize(
    "email", ["", "@", "a@", "@b", "ab", "a@b@c", "a@@b", "x" * 253 + "@b", "a\0@b", "a@\0"]
)
def test_other_email_addresses_are_refused(system: System, email: str) -> None:
    with pytest.raises(InvalidBody, match="email"):
        register(system, "ann", email)


@pytest.mark.parametrize("password", ["12345", "x" * 1024, "     ", "\U0001f600" * 5, "a\0b\0c"])
def test_passwords_have_a_minimum_and_maximum_length(system: System, password: str) -> None:
    register(system, "ann", password=password)
    assert log_in(system, "ann", password).user_id == 1


@pytest.mark.parametrize("password", ["", "1234", "\U0001f600" * 4, "x" * 1025])
def test_other_passwords_are_refused(system: System, password: str) -> None:
    with pytest.raises(InvalidBody, match="password: 5 to 1024"):
        register(system, "ann", password=password)


def test_the_minimum_password_length_is_configurable(tmp_path: Path) -> None:
    with composed(tmp_path, min_password_length=8) as system:
        with pytest.raises(InvalidBody, match="password: 8 to 1024"):
            register(system, "ann", password="1234567")
        register(system, "ann", password="12345678")


def test_registrations_are_rate_limited_unless_they_are_invalid(tmp_path: Path) -> None:
    with composed(tmp_path, rates=Rates(registration=Rate(2, 0.1))) as system:
        for wrong in ({"name": "é"}, {"name": "a", "email": ""}, {"name": "a", "password": ""}):
            for _ in range(3):
                with pytest.raises(InvalidBody):
                    register(system, **wrong)
        register(system, "ann")
        register(system, "bob")
        with pytest.raises(RateLimited):
            register(system, "cat")
        system.run(system.accounts.register("cat", "c@d", "secret", "192.0.2.2"))


def test_passwords_are_stored_hashed(system: System) -> None:
    register(system, "ann", password="secret")
    known = system.wait_for(system.store.credentials("ann"))
    assert known is not None
    assert known.password_hash.startswith("$argon2id$")
    assert "secret" not in known.password_hash


def test_a_registration_completes_once_its_password_is_hashed(tmp_path: Path) -> None:
    """Until then a client that disconnects leaves nothing behind, and the name is free."""

    def begin(system: System) -> Deferred[Account]:
        return Deferred.fromCoroutine(system.accounts.register("ann", "a@b", "password", HERE))

    registered = []
    for system in cancelled_everywhere(tmp_path, begin):
        registered.append(system.wait_for(system.store.credentials("ann")) is not None)
        if registered[-1]:
            assert log_in(system, "ann").user_id == 1
        else:
            register(system, "ann")
    assert len(registered) >= 4
    assert registered == sorted(registered)
    assert registered.count(True) >= 2


def test_a_registration_is_refused_while_too_many_passwords_are_pending(stepped: System) -> None:
    pending = [
        Deferred.fromCoroutine(stepped.accounts.register(f"u{number}", "a@b", "secret", HERE))
        for number in range(THREADS + MAX_PENDING_OF_ADDRESS)
    ]
    with pytest.raises(Overloaded):
        result_of(Deferred.fromCoroutine(stepped.accounts.register("v", "a@b", "secret", HERE)))
    stepped.settle()
    assert len({result_of(each).id for each in pending}) == len(pending)


# Tokens


def test_a_token_authenticates_its_owner(system: System) -> None:
    ann, bob = system.account("ann"), system.account("bob")
    first, second, third = (log_in(system, name) for name in ("ann", "ann", "bob"))
    assert first.stored.created_at == system.now()
    assert len({first.token, second.token, third.token}) == 3
    for issued, account in ((first, ann), (second, ann), (third, bob)):
        digest = hashlib.sha256(issued.token.encode("ascii")).digest()
        assert issued.token.startswith(TOKEN_PREFIX)
        assert len(issued.token) >= len(TOKEN_PREFIX) + 43
        assert issued.user_id == account.id
        assert bearer(system, issued) == Session(account.id, digest, issued.stored.id)


@pytest.mark.parametrize("token", [b"", b"chatd_x", b"\xff\xfe", b"x" * 100_000])
def test_an_unknown_token_is_refused(system: System, token: bytes) -> None:
    with pytest.raises(Unauthorized):
        system.run(system.accounts.bearer(token))


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong"),
        ("ann", ""),
        ("ann", "password "),
        ("ann", "password" * 1000),
        ("ann", "\ud800"),
        ("nobody", "password"),
        ("", "password"),
        ("ann\0", "password"),
        ("é" * 1000, "password"),
        ("\ud800", "password"),
    ],
)
def test_all_wrong_credentials_get_the_same_error(system: System, name: str, password: str) -> None:
    system.account("ann")
    texts = set()
    for verb in (system.accounts.log_in, system.accounts.basic):
        with pytest.raises(Unauthorized) as refusal:
            system.run(verb(name, password, HERE))
        texts.add(refusal.value.detail)
    assert texts == {"there is no such username and password"}


def test_an_unknown_username_takes_a_password_hash_too(stepped: System) -> None:
    pending = stepped.start(stepped.accounts.log_in("nobody", "password", HERE))
    stepped.reader.step()
    assert stepped.hashing.pending == 1
    malformed = stepped.start(stepped.accounts.log_in("no body", "password", HERE))
    assert stepped.hashing.pending == 2
    stepped.settle()
    for each in (pending, malformed):
        with pytest.raises(Unauthorized):
            result_of(each)


def test_wrong_passwords_are_rate_limited_by_username_and_address(tmp_path: Path) -> None:
    with composed(tmp_path, rates=Rates(failed_log_in=Rate(3, 0.1))) as system:
        system.account("ann")
        for number in range(3):
            with pytest.raises(Unauthorized):
                system.run(system.accounts.log_in("ann", f"{number}", HERE))
        # Now even the right password is refused from there, for log-in and Basic.
        for verb in (system.accounts.log_in, system.accounts.basic):
            with pytest.raises(RateLimited):
                system.run(verb("Ann", "password", HERE))
        system.run(system.accounts.log_in("ann", "password", "192.0.2.9"))
        system.clock.advance(11)
        log_in(system, "ann")


def test_an_account_deleted_during_its_log_in_gets_no_token(stepped: System) -> None:
    ann = stepped.session("ann")
    pending = stepped.start(stepped.accounts.log_in("ann", "password", HERE))
    stepped.reader.step()
    stepped.hashing.work()
    stepped.run(stepped.accounts.delete(ann))
    with pytest.raises(Unauthorized):
        stepped.wait_for(pending)


def test_a_log_in_completes_once_its_password_is_checked(tmp_path: Path) -> None:
    """Until then a client that disconnects leaves no token behind."""

    def begin(system: System) -> Deferred[IssuedToken]:
        system.account("ann")
        return Deferred.fromCoroutine(system.accounts.log_in("ann", "password", HERE))

    counts = []
    for system in cancelled_everywhere(tmp_path, begin):
        [count] = system.store._read_db.execute("SELECT count(*) FROM token").fetchone()
        counts.append(count)
    assert len(counts) >= 6
    assert counts == sorted(counts)
    assert counts.count(1) >= 2
    assert set(counts) == {0, 1}


def test_a_log_in_that_was_abandoned_keeps_no_other_waiting(stepped: System) -> None:
    for name in ("ann", "bob"):
        stepped.account(name)
    abandoned = [stepped.start(stepped.accounts.log_in("ann", "password", HERE)) for _ in range(20)]
    while stepped.reader.step():
        pass
    for each in abandoned:
        cancel(each)
    pending = stepped.start(stepped.accounts.log_in("bob", "password", HERE))
    while stepped.reader.step():
        pass
    hashes = 0
    while stepped.hashing.step():
        hashes += 1
    assert hashes == THREADS + 1
    stepped.settle()
    assert result_of(pending).user_id == 2


def test_a_cached_token_needs_no_query(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    session = bearer(stepped, issued)
    pending = Deferred.fromCoroutine(stepped.accounts.bearer(issued.token.encode("ascii")))
    assert result_of(pending) is session


def test_cached_tokens_expire(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    bearer(stepped, issued)
    stepped.clock.advance(TOKEN_CACHE_SECONDS - 1)
    stepped.settle()
    pending = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    assert pending.called
    stepped.clock.advance(1)
    stepped.settle()
    pending = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    assert not pending.called
    stepped.settle()
    assert result_of(pending).user_id == 1


def test_tokens_of_one_turn_are_looked_up_together(stepped: System) -> None:
    for name in ("ann", "bob"):
        stepped.account(name)
    issued = [log_in(stepped, name) for name in ("ann", "bob", "ann")]
    pending = [
        Deferred.fromCoroutine(stepped.accounts.bearer(each.token.encode("ascii")))
        for each in issued
    ]
    unknown = Deferred.fromCoroutine(stepped.accounts.bearer(b"chatd_3.unknown"))
    stepped.turn()
    assert stepped.reader.pending == 1
    stepped.settle()
    assert [result_of(each).user_id for each in pending] == [1, 2, 1]
    with pytest.raises(Unauthorized):
        result_of(unknown)


def test_a_look_up_is_repeated_if_a_revocation_arrives_meanwhile(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    digest = hashlib.sha256(issued.token.encode("ascii")).digest()
    pending = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    stepped.reader.work()
    # The owner was read, but the result has not been delivered yet.
    revoked = stepped.start(stepped.tokens.log_out(Session(1, digest)))
    stepped.writer.step()
    assert revoked.called
    stepped.settle()
    with pytest.raises(Unauthorized):
        result_of(pending)
    with pytest.raises(Unauthorized):
        bearer(stepped, issued)


def test_a_look_up_is_not_affected_by_the_revocation_of_another_user(stepped: System) -> None:
    for name in ("ann", "bob"):
        stepped.account(name)
    issued = log_in(stepped, "ann")
    pending = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    stepped.reader.work()
    stepped.accounts.revoked(2, None)
    stepped.settle()
    assert result_of(pending).user_id == 1


def test_a_cancelled_look_up_leaves_nothing_behind(tmp_path: Path) -> None:
    def begin(system: System) -> Deferred[Session]:
        system.account("ann")
        issued = log_in(system, "ann")
        return Deferred.fromCoroutine(system.accounts.bearer(issued.token.encode("ascii")))

    moments = 0
    for system in cancelled_everywhere(tmp_path, begin):
        system.clock.advance(LAST_SEEN_FLUSH_SECONDS)
        system.settle()
        assert system.timers() == []
        moments += 1
    assert moments >= 3


def test_the_caches_are_bypassed_while_the_bus_is_down(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    session = bearer(stepped, issued)
    basic(stepped, "ann")
    stepped.bus.broken = "no connection"
    # Another process revokes the token without a notice.
    stepped.wait_for(stepped.store.delete_token(1, session.token or b""))
    with pytest.raises(Unauthorized):
        bearer(stepped, issued)
    pending = stepped.start(stepped.accounts.basic("ann", "password", HERE))
    assert not pending.called
    stepped.settle()
    assert result_of(pending).user_id == 1
    stepped.bus.broken = None
    # What the bus calls after it has reconnected.
    stepped.subscriber.wake_all()
    with pytest.raises(Unauthorized):
        bearer(stepped, issued)


def test_all_sessions_are_looked_up_again_after_the_cache_was_cleared(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    bearer(stepped, issued)
    basic(stepped, "ann")
    stepped.accounts.clear_cache()
    for work in (
        stepped.accounts.bearer(issued.token.encode("ascii")),
        stepped.accounts.basic("ann", "password", HERE),
    ):
        pending = stepped.start(work)
        assert not pending.called
        stepped.settle()
        assert result_of(pending).user_id == 1


# Basic


def test_cached_basic_credentials_expire(stepped: System) -> None:
    stepped.account("ann")
    assert basic(stepped, "ann").user_id == 1
    stepped.clock.advance(BASIC_CACHE_SECONDS - 1)
    stepped.settle()
    assert stepped.start(stepped.accounts.basic("ANN", "password", HERE)).called
    wrong = stepped.start(stepped.accounts.basic("ann", "Password", HERE))
    assert not wrong.called
    stepped.settle()
    with pytest.raises(Unauthorized):
        result_of(wrong)
    stepped.clock.advance(1)
    stepped.settle()
    pending = stepped.start(stepped.accounts.basic("ann", "password", HERE))
    assert not pending.called
    stepped.settle()
    assert result_of(pending).user_id == 1


def test_the_cache_does_not_contain_passwords(system: System) -> None:
    system.account("ann")
    basic(system, "ann")
    [key] = system.accounts._basic._cache._sessions
    assert len(key) == 32
    assert hashlib.blake2b(b"ann\0password", digest_size=32).digest() != key


def test_requests_with_the_same_credentials_share_one_hash(stepped: System) -> None:
    stepped.account("ann")
    pending = [
        stepped.start(stepped.accounts.basic(name, "password", HERE))
        for name in ("ann", "Ann", "ann", "ANN")
    ]
    assert stepped.reader.pending == 1
    stepped.reader.step()
    assert stepped.hashing.pending == 1
    stepped.settle()
    assert [result_of(each).user_id for each in pending] == [1] * 4
    assert stepped.accounts._basic._verifying == {}


def test_many_with_the_same_credentials_are_not_answered_in_one_turn(stepped: System) -> None:
    stepped.account("ann")

    def spend(result: Session) -> Session:
        stepped.clock.rightNow += SLICE_SECONDS / 2
        return result

    pending = [
        stepped.start(stepped.accounts.basic("ann", "password", HERE)).addCallback(spend)
        for _ in range(4)
    ]
    stepped.reader.step()
    stepped.hashing.step()
    assert [each.called for each in pending] == [True, True, False, False]
    # Those who are left are not given what has ended meanwhile.
    stepped.accounts.revoked(1, None)
    stepped.clock.advance(0)
    assert [each.called for each in pending] == [True, True, False, False]
    stepped.reader.step()
    stepped.hashing.step()
    assert [result_of(each).user_id for each in pending] == [1] * 4
    assert stepped.accounts._basic._verifying == {}


def test_concurrent_attempts_with_the_same_wrong_credentials_count_once(tmp_path: Path) -> None:
    rates = Rates(failed_log_in=Rate(2, 0.1))
    with composed(tmp_path, worker=SteppedExecutor, rates=rates) as system:
        system.account("ann")
        pending = [system.start(system.accounts.basic("ann", "wrong", HERE)) for _ in range(5)]
        system.settle()
        for each in pending:
            with pytest.raises(Unauthorized):
                result_of(each)
        # One of two attempts is left.
        assert basic(system, "ann").user_id == 1


def test_some_clients_may_disconnect_while_their_credentials_are_checked(stepped: System) -> None:
    stepped.account("ann")
    pending = [stepped.start(stepped.accounts.basic("ann", "password", HERE)) for _ in range(3)]
    cancel(pending[0])
    stepped.reader.step()
    cancel(pending[2])
    stepped.settle()
    assert result_of(pending[1]).user_id == 1
    assert stepped.accounts._basic._verifying == {}


def test_all_clients_may_disconnect_while_wrong_credentials_are_checked(stepped: System) -> None:
    pending = [stepped.start(stepped.accounts.basic("ann", "wrong", HERE)) for _ in range(3)]
    for each in pending:
        cancel(each)
    stepped.settle()
    assert stepped.accounts._basic._verifying == {}


def test_refused_credentials_are_not_cached(system: System) -> None:
    with pytest.raises(Unauthorized):
        basic(system, "ann")
    system.account("ann")
    assert basic(system, "ann").user_id == 1


def test_a_rate_limit_refuses_before_a_password_is_checked(tmp_path: Path) -> None:
    with composed(tmp_path, worker=SteppedExecutor, rates=Rates(log_in=Rate(1, 0.1))) as system:
        system.account("ann")
        assert basic(system, "ann").user_id == 1
        for verb in (system.accounts.basic, system.accounts.log_in):
            with pytest.raises(RateLimited):
                result_of(system.start(verb("bob", "password", HERE)))
        assert system.hashing.pending == system.reader.pending == 0
        # Cached credentials need no check and are not limited.
        assert basic(system, "ann").user_id == 1
        system.clock.advance(11)
        with pytest.raises(Unauthorized):
            basic(system, "bob")


def test_a_check_is_repeated_if_the_account_is_deleted_meanwhile(stepped: System) -> None:
    ann = stepped.session("ann")
    pending = stepped.start(stepped.accounts.basic("ann", "password", HERE))
    stepped.reader.step()
    deleted = stepped.start(stepped.accounts.delete(ann))
    stepped.writer.step()
    assert deleted.called
    with pytest.raises(Unauthorized):
        stepped.wait_for(pending)
    with pytest.raises(Unauthorized):
        basic(stepped, "ann")


def test_a_revoked_token_does_not_end_basic_sessions(stepped: System) -> None:
    stepped.account("ann")
    session = bearer(stepped, log_in(stepped, "ann"))
    basic(stepped, "ann")
    stepped.run(stepped.tokens.log_out(session))
    assert stepped.start(stepped.accounts.basic("ann", "password", HERE)).called


def test_an_error_of_the_store_fails_all_waiting_requests(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system.store, "credentials", lambda name: fail(StoreUnavailable("disk", 1)))
    with pytest.raises(StoreUnavailable):
        basic(system, "ann")
    assert system.accounts._basic._verifying == {}


def test_many_concurrent_authentications_all_complete(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    pending = gatherResults(
        [
            *(
                Deferred.fromCoroutine(stepped.accounts.bearer(issued.token.encode("ascii")))
                for _ in range(50)
            ),
            *(
                Deferred.fromCoroutine(stepped.accounts.basic("ann", "password", HERE))
                for _ in range(50)
            ),
        ]
    )
    assert {session.user_id for session in stepped.wait_for(pending)} == {1}


# Revocation and deletion


def test_logging_out_revokes_only_the_token_used(system: System) -> None:
    system.account("ann")
    one, other = log_in(system, "ann"), log_in(system, "ann")
    session = bearer(system, one)
    bearer(system, other)
    system.run(system.tokens.log_out(session))
    with pytest.raises(Unauthorized):
        bearer(system, one)
    assert bearer(system, other).user_id == 1


def test_a_request_with_basic_cannot_log_out(system: System) -> None:
    system.account("ann")
    with pytest.raises(NotAToken):
        system.run(system.tokens.log_out(Session(1)))


def test_a_log_out_or_deletion_completes_even_if_its_client_disconnects(tmp_path: Path) -> None:
    issued: list[IssuedToken] = []

    def begin(which: str) -> Callable[[System], Deferred[Any]]:
        def begin_it(system: System) -> Deferred[Any]:
            system.account("ann")
            issued[:] = [log_in(system, "ann")]
            session = bearer(system, issued[0])
            if which == "log_out":
                return Deferred.fromCoroutine(system.tokens.log_out(session))
            return Deferred.fromCoroutine(system.accounts.delete(session, erase=which == "erase"))

        return begin_it

    for which in ("log_out", "delete", "erase"):
        moments = 0
        (tmp_path / which).mkdir()
        for system in cancelled_everywhere(tmp_path / which, begin(which)):
            with pytest.raises(Unauthorized):
                bearer(system, issued[0])
            moments += 1
        assert moments >= 2


def test_deleting_an_account_ends_all_its_sessions(system: System) -> None:
    system.account("ann")
    system.account("bob")
    issued = log_in(system, "ann")
    session = bearer(system, issued)
    basic(system, "ann")
    bob = bearer(system, log_in(system, "bob"))
    system.run(system.accounts.delete(session))
    for work in (
        system.accounts.bearer(issued.token.encode("ascii")),
        system.accounts.basic("ann", "password", HERE),
        system.accounts.log_in("ann", "password", HERE),
        system.accounts.caller(session),
    ):
        with pytest.raises(Unauthorized):
            system.run(work)
    for missing in (system.accounts.by_id(CALLER, 1), system.accounts.by_name(CALLER, "ann")):
        with pytest.raises(UserNotFound):
            system.run(missing)
    with pytest.raises(UsernameTaken):
        register(system, "Ann")
    assert system.run(system.accounts.caller(bob)).username == "bob"


def test_deleting_an_account_twice_is_not_an_error(system: System) -> None:
    ann = system.session("ann")
    for _ in range(2):
        system.run(system.accounts.delete(ann))


# Looking up


def test_accounts_are_found_by_id_and_username(system: System) -> None:
    ann, bob = system.account("ann"), system.account("bob")
    assert system.run(system.accounts.by_id(CALLER, 2)) == bob
    assert system.run(system.accounts.by_name(CALLER, "ANN")) == ann
    assert system.run(system.accounts.caller(Session(1))) == ann


@pytest.mark.parametrize("name", ["nobody", "", "a b", "\0", "\ud800", "é", "x" * 10_000])
def test_an_unknown_username_is_not_found(system: System, name: str) -> None:
    with pytest.raises(UserNotFound):
        system.run(system.accounts.by_name(CALLER, name))


def test_an_unknown_id_is_not_found(system: System) -> None:
    with pytest.raises(UserNotFound, match="4711"):
        system.run(system.accounts.by_id(CALLER, 4711))


# Last seen


def seen(system: System, user_id: int = 1) -> int | None:
    """`last_seen_at` as others see it."""
    return system.run(system.accounts.by_id(CALLER, user_id)).last_seen_at


def written(system: System, user_id: int = 1) -> int | None:
    """`last_seen_at` in the store."""
    account = system.wait_for(system.store.account(user_id))
    assert account is not None
    return account.last_seen_at


def test_last_seen_at_is_visible_at_once_and_written_soon(system: System) -> None:
    system.account("ann")
    assert seen(system) is None
    session = basic(system, "ann")
    at = system.now()
    assert seen(system) == at
    assert system.run(system.accounts.caller(session)).last_seen_at == at
    assert written(system) is None
    system.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert written(system) == at
    assert seen(system) == at
    assert system.timers() == []


def test_a_log_in_sets_last_seen_at(system: System) -> None:
    system.account("ann")
    log_in(system, "ann")
    assert seen(system) == system.now()


def test_a_refused_request_does_not_set_last_seen_at(system: System) -> None:
    system.account("ann")
    with pytest.raises(Unauthorized):
        basic(system, "ann", "wrong")
    assert seen(system) is None
    assert system.timers() == []


def test_stopping_writes_pending_last_seen_at(system: System) -> None:
    system.account("ann")
    basic(system, "ann")
    system.run(system.accounts.stop())
    assert written(system) == system.now()
    assert system.timers() == []
    system.run(system.accounts.stop())
