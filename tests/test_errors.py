"""Errors of the domain."""

import pytest

import chatd.errors
from chatd.errors import Busy, DomainError


def coded() -> list[type[DomainError]]:
    """Every error that names itself to clients."""
    return [
        each
        for each in vars(chatd.errors).values()
        if isinstance(each, type)
        and issubclass(each, DomainError)
        and each not in (DomainError, Busy)
    ]


def test_every_error_has_a_code_of_its_own_and_a_title() -> None:
    codes = [error.code for error in coded()]
    assert len(codes) > 10
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)
    assert all(error.title and not error.title.endswith(".") for error in coded())


@pytest.mark.parametrize("error", coded())
def test_an_error_keeps_its_detail(error: type[DomainError]) -> None:
    if issubclass(error, Busy):
        busy = error("wait", 1.5)
        assert (busy.detail, busy.retry_after) == ("wait", 1.5)
        assert str(busy) == "wait"
    else:
        refusal = error("because")
        assert refusal.detail == str(refusal) == "because"
