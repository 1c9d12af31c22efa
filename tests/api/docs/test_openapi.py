"""The API description: it says what is served, all of it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import chatd.api
from chatd.api.api import API
from chatd.api.docs import openapi
from chatd.api.docs.operations import OPERATIONS, PAGE
from chatd.api.error_codes import ERRORS
from chatd.api.problems import STATUSES
from chatd.api.routes import route, routes

SOURCES = sorted(Path(chatd.api.__file__).parent.rglob("*.py"))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(API.app)


def served() -> set[tuple[str, str]]:
    """Method and path, without its final slash, of every route."""
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


def test_a_route_without_a_description_stops_the_start() -> None:
    app = routes()

    async def brand_new(self: object, request: object) -> Any:
        """Not described."""

    route(app, "GET", "/new")(brand_new)
    with pytest.raises(ValueError, match="brand_new has no row"):
        openapi.document(app)


def test_a_description_without_a_route_stops_the_start() -> None:
    with pytest.raises(ValueError, match="no route is served by delete_user"):
        openapi.document(routes())


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_every_error_code_of_the_sources_is_listed(document: dict[str, Any]) -> None:
    found = {kind.code: status for kind, status in STATUSES.items()}
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    for status, code in re.findall(
        r'(?:HTTPError|_response|problem)\(\s*(\d{3}),\s*"([a-z_]+)"', text
    ):
        found[code] = int(status)
    found["not_ready"] = 503
    listed = {code: error.status for code, error in ERRORS.items()}
    assert found.items() <= listed.items()
    assert document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == [*ERRORS]
    for row in OPERATIONS.values():
        assert set(row.errors) <= ERRORS.keys()
