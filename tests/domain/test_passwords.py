"""Hashing and verifying passwords."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type
from argon2.profiles import get_default_parameters
from twisted.internet.defer import CancelledError, Deferred

from chatd.domain.passwords import (
    MAX_PENDING,
    MAX_PENDING_OF_ADDRESS,
    THREADS,
    Passwords,
    owasp_hasher,
    threads_on,
)
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


HERE = "192.0.2.1"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(InlineExecutor(), cheap_hasher())
    yield passwords
    assert passwords._running == 0


def run(work: object) -> object:
    return result_of(Deferred.fromCoroutine(work))  # type: ignore[arg-type]


def test_a_hash_matches_only_its_password(passwords: Passwords) -> None:
    encoded = run(passwords.hash("secret", HERE))
    assert isinstance(encoded, str)
    assert encoded.startswith("$argon2id$")
    assert run(passwords.verify(encoded, "secret", HERE)) is True
    for wrong in ("Secret", "secret ", "", "secre", "x" * 2000):
        assert run(passwords.verify(encoded, wrong, HERE)) is False


def test_hashes_are_salted(passwords: Passwords) -> None:
    assert run(passwords.hash("secret", HERE)) != run(passwords.hash("secret", HERE))


@pytest.mark.parametrize(
    "password", ["a\0b", "\U0001f600" * 1024, "é", "e\u0301", "\ud800", "\udfff\ud800x"]
)
def test_a_password_may_be_any_string(passwords: Passwords, password: str) -> None:
    encoded = run(passwords.hash(password, HERE))
    assert isinstance(encoded, str)
    assert run(passwords.verify(encoded, password, HERE)) is True
    assert run(passwords.verify(encoded, password + "x", HERE)) is False


def test_without_a_hash_no_password_matches(passwords: Passwords) -> None:
    for password in ("", "secret", "a password that nobody has"):
        assert run(passwords.verify(None, password, HERE)) is False


def test_without_a_hash_the_same_work_is_done() -> None:
    hasher = CountingHasher()
    passwords = Passwords(InlineExecutor(), hasher)
    run(passwords.verify(None, "secret", HERE))
    [dummy] = hasher.verified
    assert isinstance(dummy, str)
    assert hasher.check_needs_rehash(dummy) is False


def test_a_damaged_hash_matches_no_password(passwords: Passwords) -> None:
    for damaged in ("", "plain", "$argon2id$v=19$m=8,t=1,p=1$c2FsdA", "$argon2id$v=19$"):
        assert run(passwords.verify(damaged, "secret", HERE)) is False


def test_the_parameters_are_those_that_owasp_recommends() -> None:
    hasher = owasp_hasher()
    assert (hasher.memory_cost, hasher.time_cost, hasher.parallelism) == (19456, 2, 1)
    assert hasher.type is Type.ID is get_default_parameters().type


def hash_of(passwords: Passwords, address: str) -> Deferred[str]:
    return Deferred.fromCoroutine(passwords.hash("secret", address))


def test_calls_run_in_the_executor_and_are_limited_for_each_address() -> None:
    executor = SteppedExecutor()
    passwords = Passwords(executor, cheap_hasher())
    count = THREADS + MAX_PENDING_OF_ADDRESS
    pending = [hash_of(passwords, HERE) for _ in range(count)]
    assert executor.pending == THREADS
    for work in (passwords.hash("one more", HERE), passwords.verify(None, "one more", HERE)):
        with pytest.raises(Overloaded) as error:
            run(work)
        assert error.value.retry_after > 0
        assert error.value.bound == "passwords"
    with pytest.raises(Overloaded):
        passwords.check_room(HERE)
    passwords.check_room("192.0.2.2")
    elsewhere = hash_of(passwords, "192.0.2.2")
    for _ in range(THREADS + 2):
        executor.step()
    assert result_of(elsewhere)
    one_more = Deferred.fromCoroutine(passwords.verify(None, "one more", HERE))
    while executor.step():
        pass
    assert result_of(one_more) is False
    assert all(result_of(each) for each in pending)
    assert passwords._running == 0


def test_what_is_cancelled_while_it_waits_is_not_hashed() -> None:
    executor = SteppedExecutor()
    passwords = Passwords(executor, cheap_hasher())
    running = [hash_of(passwords, HERE) for _ in range(THREADS)]
    abandoned = [hash_of(passwords, HERE) for _ in range(MAX_PENDING_OF_ADDRESS)]
    elsewhere = hash_of(passwords, "192.0.2.2")
    for each in abandoned:
        each.cancel()
        each.addErrback(lambda failure: failure.trap(CancelledError))
    for _ in range(THREADS + 1):
        executor.step()
    assert all(result_of(each) for each in (*running, elsewhere))
    assert not executor.step()
    assert not passwords.pending


def test_calls_are_limited_in_all() -> None:
    executor = SteppedExecutor()
    passwords = Passwords(executor, cheap_hasher())
    addresses = [f"192.0.{number >> 8}.{number & 255}" for number in range(MAX_PENDING // 2)]
    for address in ["::1"] * THREADS + 2 * addresses:
        hash_of(passwords, address)
    with pytest.raises(Overloaded):
        passwords.check_room("192.0.0.1")
    passwords.check_room("::1")


def test_addresses_of_a_network_share_their_turn() -> None:
    executor = SteppedExecutor()
    passwords = Passwords(executor, cheap_hasher())
    for number in range(THREADS + MAX_PENDING_OF_ADDRESS):
        hash_of(passwords, f"2001:db8:0:{number:x}::1")
    with pytest.raises(Overloaded):
        passwords.check_room("2001:db8:0:ffff::1")
    passwords.check_room("2001:db8:1::1")


def test_an_address_that_had_nothing_to_hash_is_next() -> None:
    executor = SteppedExecutor()
    passwords = Passwords(executor, cheap_hasher(), 1)
    for _ in range(10):
        for number in range(5):
            hash_of(passwords, f"192.0.2.{number}")
    for _ in range(20):
        executor.step()
    innocent = hash_of(passwords, "198.51.100.1")
    executor.step()
    assert not innocent.called
    executor.step()
    assert result_of(innocent)
    while executor.step():
        pass


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
            run(passwords.hash("secret", HERE))
    hasher.broken = False
    assert run(passwords.hash("secret", HERE))


def test_stopping_stops_the_executor() -> None:
    executor = InlineExecutor()
    Passwords(executor, cheap_hasher()).stop()
    assert executor.stopped


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (64, THREADS)])
def test_no_more_are_hashed_at_once_than_there_are_cores(cores: int, threads: int) -> None:
    assert threads_on(cores) == threads
    executor = SteppedExecutor()
    passwords = Passwords(executor, cheap_hasher(), threads)
    pending = [hash_of(passwords, HERE) for _ in range(5)]
    assert executor.pending == threads
    assert passwords.pending == 5
    while executor.step():
        pass
    assert all(result_of(each) for each in pending)
