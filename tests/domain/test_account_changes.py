"""Changing passwords and email addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from chatd.domain.rate_limits import Rates
from chatd.errors import InvalidBody, RateLimited, Unauthorized, WrongPassword
from chatd.model import Account, AccountChange, IssuedToken, Session
from chatd.rates import Rate
from tests.doubles import SteppedExecutor, System, cancelled_everywhere, composed, result_of

HERE = "192.0.2.1"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system whose threads run inline, with an account."""
    with composed(tmp_path) as system:
        system.account("ann")
        yield system


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[System]:
    """A system whose threads the test steps, with an account."""
    with composed(tmp_path, worker=SteppedExecutor) as system:
        system.account("ann")
        yield system


def log_in(system: System, password: str = "password") -> IssuedToken:
    return system.run(system.accounts.log_in("ann", password, HERE))


def bearer(system: System, issued: IssuedToken) -> Session:
    return system.run(system.accounts.bearer(issued.token.encode("ascii")))


def start(
    system: System,
    session: Session,
    password: str | None = None,
    email: str | None = None,
    *,
    current: str = "password",
) -> Deferred[Account]:
    return system.start(system.account_changes.change(session, current, password, email, HERE))


def test_an_email_is_changed_without_ending_a_session(system: System) -> None:
    one, two = log_in(system), log_in(system)
    basic = system.run(system.accounts.basic("ann", "password", HERE))
    account = result_of(start(system, bearer(system, one), email="new@example.org"))
    assert account.email == "new@example.org"
    assert account == system.run(system.accounts.caller(basic))
    assert bearer(system, two).user_id == 1


def test_a_new_password_ends_all_other_sessions(system: System) -> None:
    one, two = log_in(system), log_in(system)
    session = bearer(system, one)
    others = [bearer(system, two), system.run(system.accounts.basic("ann", "password", HERE))]
    held = [system.start(system.chats.poll(each, None, 100, 55)) for each in (session, *others)]
    result_of(start(system, session, "new password"))
    assert [each.called for each in held] == [False, True, True]
    for each in held[1:]:
        with pytest.raises(Unauthorized):
            result_of(each)
    system.send(session, 1, "still here")
    assert result_of(held[0]).count == 1
    with pytest.raises(Unauthorized):
        bearer(system, two)
    with pytest.raises(Unauthorized):
        system.run(system.accounts.basic("ann", "password", HERE))
    log_in(system, "new password")


def test_the_present_password_is_checked(system: System) -> None:
    session = bearer(system, log_in(system))
    with pytest.raises(WrongPassword):
        result_of(start(system, session, "new password", current="Password"))
    with pytest.raises(InvalidBody):
        result_of(start(system, session))
    log_in(system)


def test_invalid_changes_cost_no_hash(stepped: System) -> None:
    session = bearer(stepped, log_in(stepped))
    for changes in ({}, {"password": "1234"}, {"email": "x"}):
        with pytest.raises(InvalidBody):
            result_of(start(stepped, session, **changes))
    assert stepped.hashing.pending == 0


def test_attempts_count_as_log_ins(tmp_path: Path) -> None:
    with composed(tmp_path, rates=Rates(log_in=Rate(2, 0.1))) as system:
        system.account("ann")
        session = bearer(system, log_in(system))
        result_of(start(system, session, email="a@b"))
        with pytest.raises(RateLimited):
            result_of(start(system, session, email="c@d"))


def test_passwords_are_hashed_in_threads(stepped: System) -> None:
    session = bearer(stepped, log_in(stepped))
    changing = start(stepped, session, "new password")
    stepped.reader.step()
    stepped.reader.step()
    assert stepped.hashing.pending == 1
    stepped.hashing.step()
    assert stepped.hashing.pending == 1
    assert not changing.called
    stepped.settle()
    assert result_of(changing).id == 1


def test_a_change_that_another_one_overtook_checks_the_new_password(stepped: System) -> None:
    one, two = bearer(stepped, log_in(stepped)), bearer(stepped, log_in(stepped))
    first = start(stepped, one, "new password")
    while not stepped.writer.pending:
        stepped.micro_step()
    # It is about to be committed when the password of the second one is checked.
    overtaken = start(stepped, two, email="late@example.org")
    while stepped.writer.pending < 2:
        stepped.reader.step()
        stepped.hashing.step()
    stepped.settle()
    assert result_of(first).email == "ann@example.org"
    with pytest.raises(WrongPassword):
        stepped.wait_for(overtaken)


def test_a_log_in_with_the_old_password_that_a_change_overtook_fails(stepped: System) -> None:
    late = stepped.start(stepped.accounts.log_in("ann", "password", HERE))
    stepped.reader.step()
    stepped.hashing.work()
    # The password was found to be right, but the reactor does not know yet.
    [old] = [row[0] for row in stepped.store._read_db.execute("SELECT password_hash FROM account")]
    changing = stepped.store.change_account(AccountChange(1, old, old.replace("$", "?")))
    stepped.writer.step()
    assert result_of(changing) is not None
    with pytest.raises(Unauthorized):
        stepped.wait_for(late)
    assert stepped.wait_for(stepped.store.tokens(1)) == []


def test_a_deleted_account_cannot_be_changed(system: System) -> None:
    session = bearer(system, log_in(system))
    system.run(system.accounts.delete(session))
    with pytest.raises(Unauthorized):
        result_of(start(system, session, email="a@b"))


def test_a_change_completes_even_if_its_client_disconnects(tmp_path: Path) -> None:
    issued: list[IssuedToken] = []

    def begin(system: System) -> Deferred[Account]:
        system.account("ann")
        issued[:] = [log_in(system), log_in(system)]
        session = bearer(system, issued[0])
        changing = system.account_changes.change(session, "password", "new password", None, HERE)
        return Deferred.fromCoroutine(changing)

    changed = 0
    for system in cancelled_everywhere(tmp_path, begin):
        # All or nothing: cancelled before the account was read, nothing happens.
        try:
            log_in(system, "new password")
        except Unauthorized:
            bearer(system, issued[1])
        else:
            changed += 1
            with pytest.raises(Unauthorized):
                bearer(system, issued[1])
        bearer(system, issued[0])
    assert changed >= 6
