"""The OpenAPI document describes every call and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import chatd.api
import chatd.http
from chatd.api.api import API
from chatd.api.docs import openapi
from chatd.api.docs.docs_page import describe
from chatd.api.error_codes import DOMAIN_ERRORS, ERROR_CODES
from chatd.model import Cursor
from tests.api.service import Service

SOURCES = [
    path
    for package in (chatd.api, chatd.http)
    for path in Path(str(package.__file__)).parent.rglob("*.py")
]

# The web page is no part of the API.
PAGE = {"get_page", "get_web_file", "get_versioned_web_file"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document([call for call in API.calls if call.documented])


def served() -> set[tuple[str, str]]:
    """Method and path, without its final slash, of every route of the API."""
    return {
        (method, rule.rule.rstrip("/"))
        for rule in API.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint not in PAGE
    }


def test_every_route_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    described = {
        (method.upper(), path.rstrip("/"))
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert described == served()
    assert {call.name for call in API.calls if not call.documented} == PAGE


def test_the_document_is_served(document: dict[str, Any], stock: Service) -> None:
    assert stock.get("/api/v1/openapi.json").json == document
    assert describe(API.calls) is describe(API.calls), "made once"


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    # It takes long to import, which every process would do for this test.
    from openapi_spec_validator import OpenAPIV31SpecValidator

    OpenAPIV31SpecValidator(document).validate()


def test_parameters_have_the_default_that_applies_to_every_alternative(
    document: dict[str, Any],
) -> None:
    call = document["paths"]["/api/v1/chats"]["get"]
    defaults = {each["name"]: each["schema"].get("default") for each in call["parameters"]}
    assert set(defaults) == {
        "page",
        "at",
        "limit",
        "since",
        "wait",
        "changes",
        "with",
        "before",
        "Prefer",
        "Last-Event-ID",
    }
    assert set(defaults.values()) == {None}
    call = document["paths"]["/api/v1/conversations"]["get"]
    assert call["parameters"][0]["schema"]["default"] == 50
    call = document["paths"]["/api/v1/users"]["get"]
    assert call["parameters"][2]["schema"]["default"] == 20


def test_a_request_with_every_default_is_valid(document: dict[str, Any], stock: Service) -> None:
    # Clients made from the description send them.
    ann = stock.new_user()
    calls = 0
    for path, methods in document["paths"].items():
        if "get" not in methods:
            continue
        defaults = {
            each["name"]: each["schema"]["default"]
            for each in methods["get"].get("parameters", [])
            if "default" in each["schema"]
        }
        response = ann.get(f"{path}?{urlencode(defaults)}")
        assert response.status == 200, response
        calls += bool(defaults)
    assert calls == 2


def test_every_response_says_which_headers_all_have(document: dict[str, Any]) -> None:
    for methods in document["paths"].values():
        for call in methods.values():
            tells = any(each["in"] == "query" for each in call.get("parameters", []))
            for response in call["responses"].values():
                assert "X-Request-ID" in response["headers"]
                assert ("Unknown-Parameter" in response["headers"]) == tells


def test_every_authenticated_call_may_be_rate_limited(document: dict[str, Any]) -> None:
    # Wrong passwords are, whatever was asked for, and so are reads.
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation.get("security") != []:
                assert "429" in operation["responses"], (method, path)
                assert "Retry-After" in operation["responses"]["429"]["headers"]


def test_what_can_be_left_out_has_no_default(document: dict[str, Any]) -> None:
    # Generators would demand it, and send null.
    schemas = document["components"]["schemas"]
    assert schemas["LogIn"]["required"] == ["username", "password"]
    assert "default" not in str(schemas)


def test_only_requests_exclude_other_members(document: dict[str, Any]) -> None:
    closed = {
        name
        for name, schema in document["components"]["schemas"].items()
        if schema.get("additionalProperties") is False
    }
    assert closed == {call.body.__name__ for call in API.calls if call.body is not None}


def test_descriptions_are_not_indented(document: dict[str, Any]) -> None:
    descriptions = [each["description"] for each in document["components"]["schemas"].values()]
    assert any("\n\n" in each for each in descriptions)
    assert not any("\n " in each for each in descriptions)


def test_every_tag_is_described(document: dict[str, Any]) -> None:
    assert all(each["description"] for each in document["tags"])


def test_the_pattern_of_a_cursor_is_that_of_the_model(document: dict[str, Any]) -> None:
    call = document["paths"]["/api/v1/chats"]["get"]
    [pattern] = [each["schema"]["pattern"] for each in call["parameters"] if each["name"] == "at"]
    for text in ("abcdefgh-0", "a2345672-9007199254740991", "abcdefgh-1.2", "abcdefgh-0.0.0.0"):
        assert re.search(pattern, text)
        assert str(Cursor.parse(text)) == text


def test_every_error_code_of_the_sources_is_listed(document: dict[str, Any]) -> None:
    found = {error.code: error.status for error in DOMAIN_ERRORS.values()}
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    for status, code in re.findall(r'\(\s*(?:context,\s*)?(\d{3}),\s*"([a-z_]+)"', text):
        found[code] = int(status)
    assert {"not_found", "internal_error", "body_too_large", "uri_too_long"} <= found.keys()
    assert found == {code: error.status for code, error in ERROR_CODES.items()}
    assert document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == [
        *ERROR_CODES
    ]
