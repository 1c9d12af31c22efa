"""A call is declared once: its route, parsing, errors and description follow."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import pytest
from msgspec import Struct
from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from chatd.api.admin import Admin
from chatd.api.api import API
from chatd.api.calls import ResponseSpec, bind, call, calls_of, routes
from chatd.api.context import RequestContext
from chatd.api.dispatch import Dispatch
from chatd.api.docs import openapi
from chatd.api.parameters import IDEMPOTENCY_KEY, Parameters, integer
from chatd.api.rendering import document
from chatd.api.responses import JSONResponse, Response
from chatd.errors import Unauthorized, UserNotFound
from chatd.metrics import Metrics
from chatd.model import Session
from tests.http.raw_client import RawClient, RawResponse, get, post

APPLICATIONS: list[Any] = [API, Admin]


def rules(application: Any) -> list[Any]:
    return list(application.app.url_map.iter_rules())


@pytest.mark.parametrize("application", APPLICATIONS)
def test_every_call_has_a_route_and_a_name_of_its_own(application: Any) -> None:
    names = [each.name for each in application.calls]
    assert len(set(names)) == len(names)
    assert sorted(rule.endpoint for rule in rules(application)) == sorted(names)


@pytest.mark.parametrize("application", APPLICATIONS)
def test_paths_have_no_final_slash(application: Any) -> None:
    for rule in rules(application):
        assert rule.rule == "/" or not rule.rule.endswith("/")
        assert rule.methods
        assert rule.methods - {"HEAD"} <= {"GET", "POST", "PUT", "PATCH", "DELETE"}


def test_authenticated_calls_need_a_scope() -> None:
    # Every token may revoke itself.
    assert [each.name for each in API.calls if each.authenticated and each.scope is None] == [
        "log_out"
    ]
    assert not [each.name for each in API.calls if each.scope and not each.authenticated]


@pytest.mark.parametrize("application", APPLICATIONS)
def test_only_files_of_the_page_have_path_arguments(application: Any) -> None:
    # They go through Klein, which is slower.
    assert {rule.endpoint for rule in rules(application) if rule.arguments} <= {
        "get_web_file",
        "get_versioned_web_file",
    }


@pytest.mark.parametrize("application", APPLICATIONS)
def test_methods_take_what_their_calls_declare(application: Any) -> None:
    for each in application.calls:
        hints = get_type_hints(each.implementation)
        names = list(inspect.signature(each.implementation).parameters)
        expected: list[Any] = [RequestContext]
        if each.authenticated:
            expected.append(Session)
        if each.parameters is not None:
            kinds = list(each.parameters.kinds)
            union = kinds[0]
            for kind in kinds[1:]:
                union = union | kind
            expected.append(union)
        if each.body is not None:
            expected.append(each.body)
        assert [hints[name] for name in names[1:]] == expected, each.name


@pytest.mark.parametrize("application", APPLICATIONS)
def test_bodies_refuse_unknown_members(application: Any) -> None:
    for each in application.calls:
        if each.body is not None:
            assert each.body.__struct_config__.forbid_unknown_fields, each.name


class NewNote(Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/notes`."""

    text: str


class Note(Struct):
    """A note."""

    user_id: int
    copies: int
    text: str
    key: str | None


class NoteParameters(Struct, frozen=True):
    copies: Annotated[int, integer("copies", "How many.", 9)] = 1
    key: Annotated[str | None, IDEMPOTENCY_KEY] = None


class NoteCalls:
    """A call that the daemon does not have."""

    @call(
        "POST",
        "/api/v1/notes",
        summary="Write a note",
        tag="Notes",
        parameters=Parameters(NoteParameters),
        body=NewNote,
        responses={201: ResponseSpec("The note.", (Note,))},
        raises=(UserNotFound,),
        authenticated=True,
    )
    async def write_note(
        self,
        context: RequestContext,
        session: Session,
        parameters: NoteParameters,
        body: NewNote,
    ) -> Response:
        if body.text == "nobody":
            raise UserNotFound("there is nobody")
        note = Note(session.user_id, parameters.copies, body.text, parameters.key)
        return JSONResponse(201, document(note))


def authenticate(context: RequestContext) -> Any:
    if context.header(b"authorization") != b"Bearer token":
        raise Unauthorized("send the token")
    return succeed(Session(7))


class Notes:
    """An application of that one call."""

    calls = calls_of(NoteCalls)
    app = routes(calls)

    def __init__(self) -> None:
        self.handlers = bind(authenticate, NoteCalls())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


Send = Callable[[bytes], RawResponse]


@pytest.fixture
def send(metrics: Metrics) -> Send:
    dispatch = Dispatch(Notes(), clock=Clock(), metrics=metrics)

    def send(request: bytes) -> RawResponse:
        client = RawClient(resource=dispatch)
        client.send(request)
        return client.response()

    return send


HEADERS = ("Authorization: Bearer token", "Content-Type: application/json")


def write(
    query: str = "",
    body: bytes = b'{"text":"x"}',
    headers: tuple[str, ...] = HEADERS,
    path: str = "/api/v1/notes",
) -> bytes:
    return post(body, *headers, target=path + query)


@pytest.mark.parametrize("path", ["/api/v1/notes", "/api/v1/notes/", "/api/v1/%6eotes"])
def test_a_declared_call_is_served(send: Send, metrics: Metrics, path: str) -> None:
    response = send(write("?copies=3", headers=(*HEADERS, "Idempotency-Key: k"), path=path))
    assert response.status == 201
    assert json.loads(response.body) == {"user_id": 7, "copies": 3, "text": "x", "key": "k"}
    assert b'method="POST",route="write_note",status="201"} 1.0' in metrics.render()


def test_absent_parameters_have_their_defaults(send: Send) -> None:
    assert json.loads(send(write()).body) == {"user_id": 7, "copies": 1, "text": "x", "key": None}


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (write(headers=()), 401, "unauthorized"),
        (write("?copies=10", headers=HEADERS[1:]), 401, "unauthorized"),
        (write("?copies=10", b"{}"), 400, "invalid_query"),
        (write("?copies=1&copies=1"), 400, "invalid_query"),
        (write(headers=(*HEADERS, "Idempotency-Key: a b")), 400, "invalid_header"),
        (write(body=b"{}"), 400, "invalid_body"),
        (write(body=b'{"text":"x","more":1}'), 400, "invalid_body"),
        (write(headers=HEADERS[:1]), 415, "unsupported_media_type"),
        (write(body=b'{"text":"nobody"}'), 404, "user_not_found"),
        (get("/api/v1/notes"), 405, "method_not_allowed"),
        (get("/api/v1/note"), 404, "not_found"),
    ],
)
def test_a_declared_call_refuses_what_it_does_not_take(
    send: Send, request_bytes: bytes, status: int, code: str
) -> None:
    response = send(request_bytes)
    assert (response.status, response.code) == (status, code)


def test_a_declared_call_is_described() -> None:
    described = openapi.document(Notes.calls)
    OpenAPIV31SpecValidator(described).validate()
    assert described["tags"] == [{"name": "Notes"}]
    [[path, methods]] = described["paths"].items()
    assert path == "/api/v1/notes"
    operation = methods["post"]
    assert (operation["operationId"], operation["summary"]) == ("write_note", "Write a note")
    assert operation["security"] == [{"token": []}, {"password": []}]
    assert [(each["name"], each["in"], each["schema"]) for each in operation["parameters"]] == [
        ("copies", "query", {"type": "integer", "minimum": 1, "maximum": 9, "default": 1}),
        ("Idempotency-Key", "header", IDEMPOTENCY_KEY.schema),
    ]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/NewNote"}
    assert {"NewNote", "Note", "Problem"} == described["components"]["schemas"].keys()
    codes = {
        status: response["content"]["application/problem+json"]["schema"]["allOf"][1]
        for status, response in operation["responses"].items()
        if status >= "400"
    }
    assert {status: each["properties"]["code"]["enum"] for status, each in codes.items()} == {
        "400": ["bad_request", "invalid_body", "invalid_header", "invalid_query"],
        "401": ["account_disabled", "unauthorized"],
        "404": ["user_not_found"],
        "413": ["body_too_large"],
        "415": ["unsupported_media_type"],
        "429": ["rate_limited"],
    }
