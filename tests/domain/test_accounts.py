"""Register, log in, find out who is calling, revoke, delete."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, fail, gatherResults

from chatd.domain.accounts import BASIC_CACHE_SECONDS, TOKEN_CACHE_SECONDS, TOKEN_PREFIX
from chatd.domain.rate_limits import Rate, Rates
from chatd.domain.sessions import LAST_SEEN_FLUSH_SECONDS
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
from tests.doubles import SteppedExecutor, System, cancel, cancelled_everywhere, composed, result_of

HERE = "192.0.2.1"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """Everything at once."""
    with composed(tmp_path) as system:
        yield system


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[System]:
    """Threads move when the test says so."""
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


def test_a_registered_account_may_log_in(system: System) -> None:
    account = register(system, "Ann", "ann@example.org", "secret")
    assert account == Account(1, "Ann", "ann@example.org", system.now(), None)
    assert log_in(system, "ann", "secret").user_id == 1
    assert basic(system, "ANN", "secret") == Session(1)


def test_where_registration_is_closed_nobody_registers(tmp_path: Path) -> None:
    with composed(tmp_path, registration_open=False) as system:
        with pytest.raises(RegistrationClosed):
            register(system, "ann")
        assert system.wait_for(system.store.account_named("ann")) is None


@pytest.mark.parametrize("name", ["a", "x" * 32, "A.b_C-9", "007", "-", "...", "_"])
def test_names_are_of_a_few_ascii_characters(system: System, name: str) -> None:
    assert register(system, name).username == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 33, "a b", "a\n", "é", "a@b", "a/b", "a%", "\uff41", "a\0", "\ud800", "ann\u200b"],
)
def test_other_names_are_refused(system: System, name: str) -> None:
    with pytest.raises(InvalidBody, match="username"):
        register(system, name)


def test_a_name_is_given_once(system: System) -> None:
    register(system, "ann")
    with pytest.raises(UsernameTaken):
        register(system, "ANN")


@pytest.mark.parametrize("email", ["a@b", "x" * 252 + "@b", "a b@ü", "'\"@x.example"])
def test_addresses_have_one_at_inside(system: System, email: str) -> None:
    assert register(system, "ann", email).email == email


@pytest.mark.parametrize(
    "email", ["", "@", "a@", "@b", "ab", "a@b@c", "a@@b", "x" * 253 + "@b", "a\0@b", "a@\0"]
)
def test_other_addresses_are_refused(system: System, email: str) -> None:
    with pytest.raises(InvalidBody, match="email"):
        register(system, "ann", email)


@pytest.mark.parametrize("password", ["12345", "x" * 1024, "     ", "\U0001f600" * 5, "a\0b\0c"])
def test_passwords_are_of_some_length(system: System, password: str) -> None:
    register(system, "ann", password=password)
    assert log_in(system, "ann", password).user_id == 1


@pytest.mark.parametrize("password", ["", "1234", "\U0001f600" * 4, "x" * 1025])
def test_other_passwords_are_refused(system: System, password: str) -> None:
    with pytest.raises(InvalidBody, match="password: 5 to 1024"):
        register(system, "ann", password=password)


def test_the_least_length_of_a_password_may_be_raised(tmp_path: Path) -> None:
    with composed(tmp_path, min_password_length=8) as system:
        with pytest.raises(InvalidBody, match="password: 8 to 1024"):
            register(system, "ann", password="1234567")
        register(system, "ann", password="12345678")


def test_registrations_are_limited_and_mistakes_cost_nothing(tmp_path: Path) -> None:
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


def test_a_registration_whose_client_goes_is_done_all_the_same(tmp_path: Path) -> None:
    def begin(system: System) -> Deferred[Account]:
        return Deferred.fromCoroutine(system.accounts.register("ann", "a@b", "password", HERE))

    moments = 0
    for system in cancelled_everywhere(tmp_path, begin):
        assert log_in(system, "ann").user_id == 1
        moments += 1
    assert moments >= 4


def test_when_too_many_passwords_wait_the_next_is_refused(stepped: System) -> None:
    asked = [
        Deferred.fromCoroutine(stepped.accounts.register(f"u{number}", "a@b", "secret", HERE))
        for number in range(64)
    ]
    with pytest.raises(Overloaded):
        result_of(Deferred.fromCoroutine(stepped.accounts.register("v", "a@b", "secret", HERE)))
    stepped.settle()
    assert len({result_of(each).id for each in asked}) == 64


# Tokens


def test_a_token_leads_to_its_owner(system: System) -> None:
    ann, bob = system.account("ann"), system.account("bob")
    first, second, third = (log_in(system, name) for name in ("ann", "ann", "bob"))
    assert first.created_at == system.now()
    assert len({first.token, second.token, third.token}) == 3
    for issued, account in ((first, ann), (second, ann), (third, bob)):
        digest = hashlib.sha256(issued.token.encode("ascii")).digest()
        assert issued.token.startswith(TOKEN_PREFIX)
        assert len(issued.token) >= len(TOKEN_PREFIX) + 43
        assert issued.user_id == account.id
        assert bearer(system, issued) == Session(account.id, digest)


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
def test_wrong_credentials_are_refused_alike(system: System, name: str, password: str) -> None:
    system.account("ann")
    texts = set()
    for verb in (system.accounts.log_in, system.accounts.basic):
        with pytest.raises(Unauthorized) as refusal:
            system.run(verb(name, password, HERE))
        texts.add(refusal.value.detail)
    assert texts == {"there is no such username and password"}


def test_a_name_that_nobody_has_costs_a_hash_too(stepped: System) -> None:
    asked = stepped.start(stepped.accounts.log_in("nobody", "password", HERE))
    stepped.reader.step()
    assert stepped.hashing.asked == 1
    malformed = stepped.start(stepped.accounts.log_in("no body", "password", HERE))
    assert stepped.hashing.asked == 2
    stepped.settle()
    for each in (asked, malformed):
        with pytest.raises(Unauthorized):
            result_of(each)


def test_wrong_passwords_are_limited_by_name_and_address(tmp_path: Path) -> None:
    with composed(tmp_path, rates=Rates(failed_log_in=Rate(3, 0.1))) as system:
        system.account("ann")
        for number in range(3):
            with pytest.raises(Unauthorized):
                system.run(system.accounts.log_in("ann", f"{number}", HERE))
        # Not even the right one is tried now from there, by log-in or Basic.
        for verb in (system.accounts.log_in, system.accounts.basic):
            with pytest.raises(RateLimited):
                system.run(verb("Ann", "password", HERE))
        system.run(system.accounts.log_in("ann", "password", "192.0.2.9"))
        system.clock.advance(11)
        log_in(system, "ann")


def test_an_account_that_is_deleted_during_its_log_in_gets_no_token(stepped: System) -> None:
    ann = stepped.session("ann")
    asked = stepped.start(stepped.accounts.log_in("ann", "password", HERE))
    stepped.reader.step()
    stepped.hashing.work()
    stepped.run(stepped.accounts.delete(ann))
    with pytest.raises(Unauthorized):
        stepped.wait_for(asked)


def test_a_log_in_whose_client_goes_is_done_all_the_same(tmp_path: Path) -> None:
    def begin(system: System) -> Deferred[IssuedToken]:
        system.account("ann")
        return Deferred.fromCoroutine(system.accounts.log_in("ann", "password", HERE))

    moments = 0
    for system in cancelled_everywhere(tmp_path, begin):
        [count] = system.store._read_db.execute("SELECT count(*) FROM token").fetchone()
        assert count == 1
        moments += 1
    assert moments >= 6


def test_a_remembered_token_costs_no_look_into_the_store(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    session = bearer(stepped, issued)
    asked = Deferred.fromCoroutine(stepped.accounts.bearer(issued.token.encode("ascii")))
    assert result_of(asked) is session


def test_a_token_is_remembered_for_a_while(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    bearer(stepped, issued)
    stepped.clock.advance(TOKEN_CACHE_SECONDS - 1)
    stepped.settle()
    asked = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    assert asked.called
    stepped.clock.advance(1)
    stepped.settle()
    asked = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    assert not asked.called
    stepped.settle()
    assert result_of(asked).user_id == 1


def test_tokens_of_one_turn_are_looked_up_at_once(stepped: System) -> None:
    for name in ("ann", "bob"):
        stepped.account(name)
    issued = [log_in(stepped, name) for name in ("ann", "bob", "ann")]
    asked = [
        Deferred.fromCoroutine(stepped.accounts.bearer(each.token.encode("ascii")))
        for each in issued
    ]
    unknown = Deferred.fromCoroutine(stepped.accounts.bearer(b"unknown"))
    stepped.turn()
    assert stepped.reader.asked == 1
    stepped.settle()
    assert [result_of(each).user_id for each in asked] == [1, 2, 1]
    with pytest.raises(Unauthorized):
        result_of(unknown)


def test_a_look_up_that_a_revocation_overtook_is_done_again(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    digest = hashlib.sha256(issued.token.encode("ascii")).digest()
    asked = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    stepped.reader.work()
    # It has read the owner; the reactor does not know yet.
    revoked = stepped.start(stepped.accounts.log_out(Session(1, digest)))
    stepped.writer.step()
    assert revoked.called
    stepped.settle()
    with pytest.raises(Unauthorized):
        result_of(asked)
    with pytest.raises(Unauthorized):
        bearer(stepped, issued)


def test_a_look_up_overtaken_by_another_ones_revocation_succeeds(stepped: System) -> None:
    for name in ("ann", "bob"):
        stepped.account(name)
    issued = log_in(stepped, "ann")
    asked = stepped.start(stepped.accounts.bearer(issued.token.encode("ascii")))
    stepped.reader.work()
    stepped.accounts.revoked(2, None)
    stepped.settle()
    assert result_of(asked).user_id == 1


def test_a_cancelled_look_up_leaves_nothing(tmp_path: Path) -> None:
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


def test_while_the_bus_is_down_nothing_remembered_is_believed(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    session = bearer(stepped, issued)
    basic(stepped, "ann")
    stepped.bus.broken = "no connection"
    # Another process revokes, and this one is not told.
    stepped.wait_for(stepped.store.delete_token(1, session.token or b""))
    with pytest.raises(Unauthorized):
        bearer(stepped, issued)
    asked = stepped.start(stepped.accounts.basic("ann", "password", HERE))
    assert not asked.called
    stepped.settle()
    assert result_of(asked) == Session(1)
    stepped.bus.broken = None
    # What is told after a reconnection.
    stepped.subscriber.wake_all()
    with pytest.raises(Unauthorized):
        bearer(stepped, issued)


def test_after_a_gap_every_session_is_looked_up_again(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    bearer(stepped, issued)
    basic(stepped, "ann")
    stepped.accounts.clear_cache()
    for work in (
        stepped.accounts.bearer(issued.token.encode("ascii")),
        stepped.accounts.basic("ann", "password", HERE),
    ):
        asked = stepped.start(work)
        assert not asked.called
        stepped.settle()
        assert result_of(asked).user_id == 1


# Basic


def test_basic_credentials_are_remembered_for_a_while(stepped: System) -> None:
    stepped.account("ann")
    assert basic(stepped, "ann") == Session(1)
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
    asked = stepped.start(stepped.accounts.basic("ann", "password", HERE))
    assert not asked.called
    stepped.settle()
    assert result_of(asked) == Session(1)


def test_what_is_remembered_of_credentials_is_no_password(system: System) -> None:
    system.account("ann")
    basic(system, "ann")
    [key] = system.accounts._basic._sessions
    assert len(key) == 32
    assert hashlib.blake2b(b"ann\0password", digest_size=32).digest() != key


def test_requests_with_the_same_credentials_share_one_hash(stepped: System) -> None:
    stepped.account("ann")
    asked = [
        stepped.start(stepped.accounts.basic(name, "password", HERE))
        for name in ("ann", "Ann", "ann", "ANN")
    ]
    assert stepped.reader.asked == 1
    stepped.reader.step()
    assert stepped.hashing.asked == 1
    stepped.settle()
    assert [result_of(each) for each in asked] == [Session(1)] * 4
    assert stepped.accounts._verifying == {}


def test_wrong_credentials_that_come_together_count_as_one(tmp_path: Path) -> None:
    rates = Rates(failed_log_in=Rate(2, 0.1))
    with composed(tmp_path, worker=SteppedExecutor, rates=rates) as system:
        system.account("ann")
        asked = [system.start(system.accounts.basic("ann", "wrong", HERE)) for _ in range(5)]
        system.settle()
        for each in asked:
            with pytest.raises(Unauthorized):
                result_of(each)
        # One of two is left.
        assert basic(system, "ann") == Session(1)


def test_one_of_several_may_go_while_the_credentials_are_checked(stepped: System) -> None:
    stepped.account("ann")
    asked = [stepped.start(stepped.accounts.basic("ann", "password", HERE)) for _ in range(3)]
    cancel(asked[0])
    stepped.reader.step()
    cancel(asked[2])
    stepped.settle()
    assert result_of(asked[1]) == Session(1)
    assert stepped.accounts._verifying == {}


def test_all_may_go_while_wrong_credentials_are_checked(stepped: System) -> None:
    asked = [stepped.start(stepped.accounts.basic("ann", "wrong", HERE)) for _ in range(3)]
    for each in asked:
        cancel(each)
    stepped.settle()
    assert stepped.accounts._verifying == {}


def test_refused_credentials_are_checked_again_when_they_come_again(system: System) -> None:
    with pytest.raises(Unauthorized):
        basic(system, "ann")
    system.account("ann")
    assert basic(system, "ann") == Session(1)


def test_a_rate_limit_refuses_before_any_work(tmp_path: Path) -> None:
    with composed(tmp_path, worker=SteppedExecutor, rates=Rates(log_in=Rate(1, 0.1))) as system:
        system.account("ann")
        assert basic(system, "ann") == Session(1)
        for verb in (system.accounts.basic, system.accounts.log_in):
            with pytest.raises(RateLimited):
                result_of(system.start(verb("bob", "password", HERE)))
        assert system.hashing.asked == system.reader.asked == 0
        # Who is remembered is not checked, and so not limited.
        assert basic(system, "ann") == Session(1)
        system.clock.advance(11)
        with pytest.raises(Unauthorized):
            basic(system, "bob")


def test_a_check_that_a_deletion_overtook_is_done_again(stepped: System) -> None:
    ann = stepped.session("ann")
    asked = stepped.start(stepped.accounts.basic("ann", "password", HERE))
    stepped.reader.step()
    deleted = stepped.start(stepped.accounts.delete(ann))
    stepped.writer.step()
    assert deleted.called
    with pytest.raises(Unauthorized):
        stepped.wait_for(asked)
    with pytest.raises(Unauthorized):
        basic(stepped, "ann")


def test_a_revoked_token_does_not_end_basic_sessions(stepped: System) -> None:
    stepped.account("ann")
    session = bearer(stepped, log_in(stepped, "ann"))
    basic(stepped, "ann")
    stepped.run(stepped.accounts.log_out(session))
    assert stepped.start(stepped.accounts.basic("ann", "password", HERE)).called


def test_a_fault_while_checking_is_told_to_all_who_wait(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system.store, "credentials", lambda name: fail(StoreUnavailable("disk", 1)))
    with pytest.raises(StoreUnavailable):
        basic(system, "ann")
    assert system.accounts._verifying == {}


def test_many_sessions_at_once_all_come_to_an_end(stepped: System) -> None:
    stepped.account("ann")
    issued = log_in(stepped, "ann")
    asked = gatherResults(
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
    assert {session.user_id for session in stepped.wait_for(asked)} == {1}


# Revocation and deletion


def test_a_token_that_logs_out_is_revoked_and_the_others_stay(system: System) -> None:
    system.account("ann")
    one, other = log_in(system, "ann"), log_in(system, "ann")
    session = bearer(system, one)
    bearer(system, other)
    system.run(system.accounts.log_out(session))
    with pytest.raises(Unauthorized):
        bearer(system, one)
    assert bearer(system, other).user_id == 1


def test_basic_cannot_log_out(system: System) -> None:
    system.account("ann")
    with pytest.raises(NotAToken):
        system.run(system.accounts.log_out(Session(1)))


def test_a_log_out_or_deletion_whose_client_goes_is_done_all_the_same(tmp_path: Path) -> None:
    issued: list[IssuedToken] = []

    def begin(which: str) -> Callable[[System], Deferred[None]]:
        def begin_it(system: System) -> Deferred[None]:
            system.account("ann")
            issued[:] = [log_in(system, "ann")]
            session = bearer(system, issued[0])
            return Deferred.fromCoroutine(getattr(system.accounts, which)(session))

        return begin_it

    for which in ("log_out", "delete"):
        moments = 0
        (tmp_path / which).mkdir()
        for system in cancelled_everywhere(tmp_path / which, begin(which)):
            with pytest.raises(Unauthorized):
                bearer(system, issued[0])
            moments += 1
        assert moments >= 2


def test_a_deleted_account_is_gone_with_all_its_sessions(system: System) -> None:
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
    for missing in (system.accounts.by_id(1), system.accounts.by_name("ann")):
        with pytest.raises(UserNotFound):
            system.run(missing)
    with pytest.raises(UsernameTaken):
        register(system, "Ann")
    assert system.run(system.accounts.caller(bob)).username == "bob"


def test_deleting_twice_is_no_fault(system: System) -> None:
    ann = system.session("ann")
    for _ in range(2):
        system.run(system.accounts.delete(ann))


# Looking up


def test_accounts_are_found_by_id_and_by_name(system: System) -> None:
    ann, bob = system.account("ann"), system.account("bob")
    assert system.run(system.accounts.by_id(2)) == bob
    assert system.run(system.accounts.by_name("ANN")) == ann
    assert system.run(system.accounts.caller(Session(1))) == ann


@pytest.mark.parametrize("name", ["nobody", "", "a b", "\0", "\ud800", "é", "x" * 10_000])
def test_a_name_that_nobody_has_is_not_found(system: System, name: str) -> None:
    with pytest.raises(UserNotFound):
        system.run(system.accounts.by_name(name))


def test_an_id_that_nobody_has_is_not_found(system: System) -> None:
    with pytest.raises(UserNotFound, match="4711"):
        system.run(system.accounts.by_id(4711))


# Last seen


def seen(system: System, user_id: int = 1) -> int | None:
    """What others see."""
    return system.run(system.accounts.by_id(user_id)).last_seen_at


def written(system: System, user_id: int = 1) -> int | None:
    """What the store has."""
    account = system.wait_for(system.store.account(user_id))
    assert account is not None
    return account.last_seen_at


def test_a_caller_is_seen_at_once_and_it_is_written_soon(system: System) -> None:
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


def test_a_log_in_is_a_request_too(system: System) -> None:
    system.account("ann")
    log_in(system, "ann")
    assert seen(system) == system.now()


def test_a_refused_request_is_not_seen(system: System) -> None:
    system.account("ann")
    with pytest.raises(Unauthorized):
        basic(system, "ann", "wrong")
    assert seen(system) is None
    assert system.timers() == []


def test_what_is_not_written_yet_is_written_at_the_end(system: System) -> None:
    system.account("ann")
    basic(system, "ann")
    system.run(system.accounts.stop())
    assert written(system) == system.now()
    assert system.timers() == []
    system.run(system.accounts.stop())
