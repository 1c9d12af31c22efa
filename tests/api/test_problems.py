"""Errors as problem documents."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, InternalServerError, RequestTimeout

from chatd import errors
from chatd.api import problems
from chatd.api.context import RequestContext
from chatd.api.error_codes import DOMAIN_ERRORS, ERROR_CODES, NotReady
from chatd.errors import Busy, DomainError, InsufficientScope, RateLimited, Unauthorized
from tests.conftest import LoggedFailures


def all_subclasses(kind: type[DomainError] = DomainError) -> list[type[DomainError]]:
    """All domain errors that can be raised."""
    found = []
    for each in kind.__subclasses__():
        found += all_subclasses(each)
        if hasattr(each, "code"):
            found.append(each)
    return [each for each in found if each.__module__ == errors.__name__]


def context(*authorization: bytes) -> RequestContext:
    """The context of a request with that `Authorization`."""
    request: Any = SimpleNamespace(
        method=b"GET", getHeader=lambda name: authorization[0] if authorization else None
    )
    return RequestContext(request, b"the-id", 0.0)


def test_every_domain_error_has_a_status_and_a_code_of_its_own() -> None:
    errors = all_subclasses()
    assert set(DOMAIN_ERRORS) == {*errors, NotReady}
    assert len(ERROR_CODES) > len(DOMAIN_ERRORS)
    assert len({error.code for error in errors}) == len(errors)
    assert all(error.code.islower() and error.code.replace("_", "a").isalpha() for error in errors)


@pytest.mark.parametrize("error", all_subclasses())
def test_a_domain_error_becomes_a_problem(error: type[DomainError]) -> None:
    raised = error("why", 2.5) if issubclass(error, Busy) else error("why")
    response = problems.response_to(Failure(raised), context())
    document = json.loads(response.body)
    assert response.code == document["status"] == DOMAIN_ERRORS[error].status
    assert (document["code"], document["detail"], document["title"]) == (
        error.code,
        raised.detail,
        error.title,
    )
    headers: Any = response.headers
    assert ("Retry-After" in headers) is issubclass(error, Busy)
    assert "why" in raised.detail
    assert ("WWW-Authenticate" in headers) is issubclass(error, Unauthorized | InsufficientScope)


@pytest.mark.parametrize(("after", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2")])
def test_retry_after_is_rounded_up(after: float, header: str) -> None:
    response = problems.response_to(Failure(RateLimited("why", after)), context())
    assert response.headers["Retry-After"] == header


def test_an_error_of_http_keeps_its_status() -> None:
    response = problems.response_to(Failure(RequestTimeout()), context())
    assert (response.code, json.loads(response.body)["code"]) == (408, "bad_request")


@pytest.mark.parametrize("error", [InternalServerError("secret"), HTTPException("secret")])
def test_an_error_of_the_framework_reveals_nothing(
    error: HTTPException, logged_failures: LoggedFailures
) -> None:
    response = problems.response_to(Failure(error), context())
    assert response.code == 500
    assert b"secret" not in response.body
    assert json.loads(response.body)["request_id"] == "the-id"
    assert len(logged_failures.flush(HTTPException)) == 1


def test_a_problem_without_a_title_has_that_of_its_status() -> None:
    body = problems.problem(431, "head_too_large", "why")
    assert body.endswith(b"}\n")
    document = json.loads(body)
    assert document["title"] == "Request Header Fields Too Large"


@pytest.mark.parametrize(
    ("authorization", "challenges"),
    [
        ([], ['Bearer realm="chatd"', 'Basic realm="chatd", charset="UTF-8"']),
        ([b"Digest x"], ['Bearer realm="chatd"', 'Basic realm="chatd", charset="UTF-8"']),
        ([b"bEARER x"], ['Bearer realm="chatd", error="invalid_token"']),
        ([b"BASIC x"], ['Basic realm="chatd", charset="UTF-8"']),
    ],
)
def test_the_scheme_that_was_tried_is_challenged(
    authorization: list[bytes], challenges: list[str]
) -> None:
    response = problems.response_to(Failure(Unauthorized("why")), context(*authorization))
    assert response.headers["WWW-Authenticate"] == challenges


def test_a_process_that_is_not_ready_says_why() -> None:
    response = problems.response_to(Failure(NotReady(["a", "b"])), context())
    document = json.loads(response.body)
    assert (response.code, document["reasons"], document["detail"]) == (503, ["a", "b"], "a; b")
