"""Static files of the web page and of the API description: headers, caching, references."""

from __future__ import annotations

import re
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import pytest

from chatd.api.static_responses import StaticResponses
from chatd.page.static_files import MAX_CONDITION, PAGE, VERSION
from tests.api.service import Service

WEB = files("chatd.page").joinpath("assets")
PATHS = ["/", "/api/v1/docs/", "/api/v1/openapi.json", "/web/app.js", "/web/style.css"]


@pytest.mark.parametrize("path", PATHS)
def test_files_are_revalidated_by_etag(service: Service, path: str) -> None:
    first = service.get(path)
    assert first.status == 200
    etag = first.header("ETag")
    assert etag is not None
    assert first.header("Cache-Control") == "no-cache"
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = service.get(path, headers={"If-None-Match": known})
        assert (again.status, again.body) == (304, b"")
        assert again.header("ETag") == etag
    for condition in (b'"other"', b'"\xff"', f"{',' * MAX_CONDITION}{etag}"):
        changed = service.get(path, headers={"If-None-Match": condition})
        assert (changed.status, changed.body) == (200, first.body)
    head = service.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.header("Content-Length") == str(len(first.body))


def test_files_of_a_version_are_kept_for_good(service: Service) -> None:
    for name in ("app.js", "style.css", "icon.svg"):
        kept = service.get(f"/web/{VERSION}/{name}")
        assert (kept.status, kept.body) == (200, service.get(f"/web/{name}").body)
        assert kept.header("Cache-Control") == "public, max-age=31536000, immutable"
        etag = kept.header("ETag")
        assert etag is not None
        again = service.get(f"/web/{VERSION}/{name}", headers={"If-None-Match": etag})
        assert (again.status, again.header("Cache-Control")) == (304, kept.header("Cache-Control"))


def test_a_file_of_another_version_is_that_of_this_one_for_now(stock: Service) -> None:
    found = stock.get("/web/0123456789abcdef/app.js")
    assert (found.status, found.body) == (200, stock.get("/web/app.js").body)
    assert found.header("Cache-Control") == "no-cache"


def test_the_page_names_all_scripts_of_its_version(stock: Service) -> None:
    page = stock.get("/").body.decode()
    named = set(re.findall(r'"(/web/[^"]*)"', page))
    assert all(path.startswith(f"/web/{VERSION}/") for path in named)
    scripts = {entry.name for entry in WEB.iterdir() if entry.name.endswith(".js")}
    assert {path.rpartition("/")[2] for path in named if path.endswith(".js")} == scripts
    for path in named:
        assert stock.get(path).status == 200, path


def test_the_policy_allows_only_the_same_origin(stock: Service) -> None:
    for path in PATHS:
        policy = stock.get(path).header("Content-Security-Policy")
        assert policy is not None
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        *("/web/", "/web/nothing.js", "/web/index.html/x", "/web/..%2Fapi.py"),
        *(f"/web/{VERSION}/", f"/web/{VERSION}/index.html", f"/web/{VERSION}/..%2Fapi.py"),
    ],
)
def test_other_files_are_404(stock: Service, path: str) -> None:
    stock.get(path).problem(404, "not_found")


def test_the_page_takes_no_other_method(stock: Service) -> None:
    response = stock.post("/", {})
    response.problem(405, "method_not_allowed")
    assert response.header("Allow") == "GET, HEAD, OPTIONS"


def test_media_types(stock: Service) -> None:
    for path, media_type in [
        ("/", "text/html; charset=utf-8"),
        ("/web/app.js", "text/javascript; charset=utf-8"),
        ("/web/style.css", "text/css; charset=utf-8"),
        ("/web/icon.svg", "image/svg+xml"),
        ("/api/v1/openapi.json", "application/json"),
        ("/api/v1/docs/", "text/html; charset=utf-8"),
    ]:
        assert stock.get(path).header("Content-Type") == media_type


def test_every_file_that_the_page_refers_to_exists(stock: Service) -> None:
    referenced = set()
    for entry in WEB.iterdir():
        text = entry.read_text("utf-8")
        referenced |= set(re.findall(r'(?:src|href)="(/[^"#]*)"', text))
        referenced |= {f"/web/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert {"/web/app.js", "/web/style.css", "/web/event_stream.js"} <= referenced
    for path in referenced:
        assert stock.get(path).status == 200, path


def test_the_page_cannot_run_user_text() -> None:
    for entry in WEB.iterdir():
        text = entry.read_text("utf-8")
        for call in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert call not in text, f"{entry.name}: {call}"
        if entry.name.endswith(".html"):
            assert not re.search(r"<(?:style|script)(?![^>]*\bsrc=)[^>]*>", text), entry.name
            assert not re.search(r"\s(?:on\w+|style)=", text), entry.name
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.", text), entry.name


def test_responses_are_made_once() -> None:
    file = PAGE
    responses = StaticResponses(file)
    first: Any = SimpleNamespace(getHeader=lambda name: None)
    again: Any = SimpleNamespace(getHeader=lambda name: file.headers["ETag"].encode())
    for request, status in ((first, 200), (again, 304)):
        response = responses.to(request)
        assert response.code == status
        assert responses.to(request) is response
