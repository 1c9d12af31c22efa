"""Argon2id off the reactor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type
from argon2.profiles import get_default_parameters
from twisted.internet.defer import Deferred

from chatd.domain.passwords import MAX_PENDING, Passwords, owasp_hasher
from chatd.errors import Overloaded
from tests.doubles import InlineExecutor, SteppedExecutor, cheap_hasher, result_of


class CountingHasher(PasswordHasher):
    """Notes which hashes it was asked to verify against."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[str | bytes] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
        self.verified.append(hash)
        return bool(super().verify(hash, password))


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(InlineExecutor(), cheap_hasher())
    yield passwords
    assert passwords._pending == 0


def run(work: object) -> object:
    return result_of(Deferred.fromCoroutine(work))  # type: ignore[arg-type]


def test_a_hash_fits_its_password_only(passwords: Passwords) -> None:
    encoded = run(passwords.hash("secret"))
    assert isinstance(encoded, str)
    assert encoded.startswith("$argon2id$")
    assert run(passwords.verify(encoded, "secret")) is True
    for wrong in ("Secret", "secret ", "", "secre", "x" * 2000):
        assert run(passwords.verify(encoded, wrong)) is False


def test_hashes_are_salted(passwords: Passwords) -> None:
    assert run(passwords.hash("secret")) != run(passwords.hash("secret"))


@pytest.mark.parametrize(
    "password", ["a\0b", "\U0001f600" * 1024, "é", "e\u0301", "\ud800", "\udfff\ud800x"]
)
def test_a_password_is_any_text(passwords: Passwords, password: str) -> None:
    encoded = run(passwords.hash(password))
    assert isinstance(encoded, str)
    assert run(passwords.verify(encoded, password)) is True
    assert run(passwords.verify(encoded, password + "x")) is False


def test_nobodys_password_never_fits(passwords: Passwords) -> None:
    for password in ("", "secret", "a password that nobody has"):
        assert run(passwords.verify(None, password)) is False


def test_nobodys_password_takes_the_same_work() -> None:
    hasher = CountingHasher()
    passwords = Passwords(InlineExecutor(), hasher)
    run(passwords.verify(None, "secret"))
    [dummy] = hasher.verified
    assert isinstance(dummy, str)
    assert hasher.check_needs_rehash(dummy) is False


def test_a_damaged_hash_fits_nothing(passwords: Passwords) -> None:
    for damaged in ("", "plain", "$argon2id$v=19$m=8,t=1,p=1$c2FsdA", "$argon2id$v=19$"):
        assert run(passwords.verify(damaged, "secret")) is False


def test_the_daemon_hashes_as_owasp_advises() -> None:
    hasher = owasp_hasher()
    assert (hasher.memory_cost, hasher.time_cost, hasher.parallelism) == (19456, 2, 1)
    assert hasher.type is Type.ID is get_default_parameters().type


def test_hashing_is_off_the_reactor_and_bounded() -> None:
    worker = SteppedExecutor()
    passwords = Passwords(worker, cheap_hasher())
    asked = [Deferred.fromCoroutine(passwords.hash("secret")) for _ in range(MAX_PENDING)]
    assert worker.asked == MAX_PENDING
    for work in (passwords.hash("one more"), passwords.verify(None, "one more")):
        with pytest.raises(Overloaded) as refusal:
            run(work)
        assert refusal.value.retry_after > 0
    worker.step()
    assert result_of(asked[0])
    one_more = Deferred.fromCoroutine(passwords.verify(None, "one more"))
    while worker.step():
        pass
    assert result_of(one_more) is False
    assert all(result_of(each) for each in asked)
    assert passwords._pending == 0


def test_a_failing_hash_gives_its_place_back() -> None:
    class Failing(PasswordHasher):
        broken = False

        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            if self.broken:
                raise MemoryError
            return super().hash(password, salt=salt)

    hasher = Failing(time_cost=1, memory_cost=8, parallelism=1)
    passwords = Passwords(InlineExecutor(), hasher)
    hasher.broken = True
    for _ in range(2 * MAX_PENDING):
        with pytest.raises(MemoryError):
            run(passwords.hash("secret"))
    hasher.broken = False
    assert run(passwords.hash("secret"))


def test_stopping_ends_the_threads() -> None:
    worker = InlineExecutor()
    Passwords(worker, cheap_hasher()).stop()
    assert worker.stopped
