"""From errors to statuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, InternalServerError, RequestTimeout

from chatd import errors
from chatd.api import problems
from chatd.errors import Busy, DomainError, RateLimited, Unauthorized
from tests.conftest import LoggedFailures


def every_error(kind: type[DomainError] = DomainError) -> list[type[DomainError]]:
    """All domain errors that can be raised."""
    found = []
    for each in kind.__subclasses__():
        found += every_error(each)
        if hasattr(each, "code"):
            found.append(each)
    return [each for each in found if each.__module__ == errors.__name__]


def test_every_domain_error_has_a_status_and_a_code_of_its_own() -> None:
    errors = every_error()
    assert set(problems.STATUSES) == set(errors)
    assert len({error.code for error in errors}) == len(errors)
    assert all(error.code.islower() and error.code.replace("_", "a").isalpha() for error in errors)


@pytest.mark.parametrize("error", every_error())
def test_a_domain_error_becomes_a_problem(error: type[DomainError]) -> None:
    raised = error("why", 2.5) if issubclass(error, Busy) else error("why")
    response = problems.respond(Failure(raised), "id")
    document = json.loads(response.body)
    assert response.code == document["status"] == problems.STATUSES[error]
    assert (document["code"], document["detail"], document["title"]) == (
        error.code,
        "why",
        error.title,
    )
    headers: Any = response.headers
    assert ("Retry-After" in headers) is issubclass(error, Busy)
    assert ("WWW-Authenticate" in headers) is (error is Unauthorized)


@pytest.mark.parametrize(("after", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2")])
def test_retry_after_is_whole_seconds_never_too_few(after: float, header: str) -> None:
    response = problems.respond(Failure(RateLimited("why", after)), "id")
    assert response.headers["Retry-After"] == header


def test_an_error_of_http_keeps_its_status() -> None:
    response = problems.respond(Failure(RequestTimeout()), "id")
    assert (response.code, json.loads(response.body)["code"]) == (408, "bad_request")


@pytest.mark.parametrize("error", [InternalServerError("secret"), HTTPException("secret")])
def test_a_fault_of_the_framework_says_nothing(
    error: HTTPException, logged_failures: LoggedFailures
) -> None:
    response = problems.respond(Failure(error), "the-id")
    assert response.code == 500
    assert b"secret" not in response.body
    assert json.loads(response.body)["request_id"] == "the-id"
    assert len(logged_failures.flush(HTTPException)) == 1


def test_a_problem_without_a_title_has_that_of_its_status() -> None:
    document = json.loads(problems.problem(431, "head_too_large", "why"))
    assert document["title"] == "Request Header Fields Too Large"
