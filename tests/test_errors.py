"""Codes, titles and details of domain errors."""

import pytest

import chatd.errors
from chatd.errors import Busy, DomainError, InsufficientScope


def coded() -> list[type[DomainError]]:
    """All errors that have a code."""
    return [
        each
        for each in vars(chatd.errors).values()
        if isinstance(each, type)
        and issubclass(each, DomainError)
        and each not in (DomainError, Busy)
    ]


def test_every_error_has_a_unique_code_and_a_title() -> None:
    codes = [error.code for error in coded()]
    assert len(codes) > 10
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)
    assert all(error.title and not error.title.endswith(".") for error in coded())


@pytest.mark.parametrize("error", coded())
def test_an_error_has_its_detail_as_text(error: type[DomainError]) -> None:
    if issubclass(error, Busy):
        busy = error("wait", 1.5)
        assert (busy.detail, busy.retry_after) == ("wait", 1.5)
        assert str(busy) == "wait"
    elif issubclass(error, InsufficientScope):
        missing = error("send")
        assert missing.detail == str(missing) == "this needs a token with the scope send"
    else:
        raised = error("because")
        assert raised.detail == str(raised) == "because"
