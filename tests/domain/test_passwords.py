"""Hashing and verifying passwords."""

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
    """Records the hashes that passwords were verified against."""

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


def test_a_hash_matches_only_its_password(passwords: Passwords) -> None:
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
def test_a_password_may_be_any_string(passwords: Passwords, password: str) -> None:
    encoded = run(passwords.hash(password))
    assert isinstance(encoded, str)
    assert run(passwords.verify(encoded, password)) is True
    assert run(passwords.verify(encoded, password + "x")) is False


def test_without_a_hash_no_password_matches(passwords: Passwords) -> None:
    for password in ("", "secret", "a password that nobody has"):
        assert run(passwords.verify(None, password)) is False


def test_without_a_hash_the_same_work_is_done() -> None:
    hasher = CountingHasher()
    passwords = Passwords(InlineExecutor(), hasher)
    run(passwords.verify(None, "secret"))
    [dummy] = hasher.verified
    assert isinstance(dummy, str)
    assert hasher.check_needs_rehash(dummy) is False


def test_a_damaged_hash_matches_no_password(passwords: Passwords) -> None:
    for damaged in ("", "plain", "$argon2id$v=19$m=8,t=1,p=1$c2FsdA", "$argon2id$v=19$"):
        assert run(passwords.verify(damaged, "secret")) is False


def test_the_parameters_are_those_that_owasp_recommends() -> None:
    hasher = owasp_hasher()
    assert (hasher.memory_cost, hasher.time_cost, hasher.parallelism) == (19456, 2, 1)
    assert hasher.type is Type.ID is get_default_parameters().type


def test_calls_run_in_the_executor_and_are_limited() -> None:
    executor = SteppedExecutor()
    passwords = Passwords(executor, cheap_hasher())
    pending = [Deferred.fromCoroutine(passwords.hash("secret")) for _ in range(MAX_PENDING)]
    assert executor.pending == MAX_PENDING
    for work in (passwords.hash("one more"), passwords.verify(None, "one more")):
        with pytest.raises(Overloaded) as error:
            run(work)
        assert error.value.retry_after > 0
    executor.step()
    assert result_of(pending[0])
    one_more = Deferred.fromCoroutine(passwords.verify(None, "one more"))
    while executor.step():
        pass
    assert result_of(one_more) is False
    assert all(result_of(each) for each in pending)
    assert passwords._pending == 0


def test_a_failed_call_is_no_longer_pending() -> None:
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


def test_stopping_stops_the_executor() -> None:
    executor = InlineExecutor()
    Passwords(executor, cheap_hasher()).stop()
    assert executor.stopped
