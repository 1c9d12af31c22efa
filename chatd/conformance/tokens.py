"""Checks of tokens with labels, scopes and expiry, and of changed accounts (version 1.1)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from chatd.conformance.checks import SOON, check, expect, expect_equal, require_support
from chatd.conformance.server import PASSWORD, Account, Server

TOKENS = "Account and tokens (version 1.1)"

MEMBERS = {"id", "label", "scopes", "created_at", "last_used_at", "expires_at", "current"}


async def _account(server: Server) -> Account:
    """An account; raises `NotSupported` if the server has version 1 only."""
    account = await server.new_account()
    require_support(await account.request("GET", "/tokens/"), "GET /tokens/")
    return account


async def _log_in(server: Server, account: Account, **chosen: Any) -> dict[str, Any]:
    body = {"username": account.name, "password": PASSWORD, **chosen}
    response = await server.request("POST", "/tokens/", body=body)
    expect_equal(response.status, 201, f"POST /tokens/ with {chosen}")
    found: dict[str, Any] = response.json
    return found


async def _change(account: Account, **changes: str) -> Any:
    body = {"current_password": PASSWORD, **changes}
    return await account.request("PATCH", "/users/", body=body)


@check(TOKENS, "tokens have a label, scopes and an end, and are listed without themselves")
async def listed(server: Server) -> None:
    ann = await _account(server)
    plain = await _log_in(server, ann)
    chosen = [plain[name] for name in ("label", "scopes", "expires_at")]
    expect_equal(chosen, [None, ["read", "send", "account"], None], "a token without choices")
    limited = await _log_in(server, ann, label="phone", expires_in=3600, scopes=["read"])
    seconds = _time(limited["expires_at"]) - _time(limited["created_at"])
    expect_equal(seconds, 3600, "seconds until the end")
    tokens = (await ann.request("GET", "/tokens/")).json["tokens"]
    by_id = {token["id"]: token for token in tokens}
    expect_equal(len(by_id), 3, "the number of tokens")
    expect_equal({frozenset(token) for token in tokens}, {frozenset(MEMBERS)}, "members")
    found = by_id[limited["id"]]
    for name in ("label", "scopes", "created_at", "expires_at"):
        expect_equal(found[name], limited[name], name)
    expect_equal([token["current"] for token in tokens].count(True), 1, "current tokens")
    expect(plain["token"] not in str(tokens), "the list has tokens in it")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@check(TOKENS, "wrong labels, ends and scopes are 400")
async def choices(server: Server) -> None:
    ann = await _account(server)
    wrong_choices: list[dict[str, Any]] = [
        *({"label": ""}, {"label": "x" * 65}, {"expires_in": 59}, {"expires_in": 31_536_001}),
        *({"scopes": []}, {"scopes": ["write"]}, {"expires_in": "60"}, {"scopes": "read"}),
    ]
    for wrong in wrong_choices:
        body = {"username": ann.name, "password": PASSWORD, **wrong}
        response = await server.request("POST", "/tokens/", body=body)
        expect_equal((response.status, response.code), (400, "invalid_body"), f"{wrong}")


@check(TOKENS, "a token is revoked by its id, which ends its polls at once")
async def revoked(server: Server) -> None:
    ann = await _account(server)
    one, two = await _log_in(server, ann), await _log_in(server, ann)
    held = server.start(server.request("GET", "/chats/?since=now&wait=9", token=one["token"]))
    kept = server.start(server.request("GET", "/chats/?since=now&wait=2", token=two["token"]))
    await server.pause(0.5)
    path = f"/tokens/?id={one['id']}"
    expect_equal((await ann.request("DELETE", path)).status, 204, f"DELETE {path}")
    response = await held
    expect_equal(response.status, 401, "the poll of the revoked token")
    expect(response.seconds < 0.5 + SOON, f"the poll ended after {response.seconds:.1f} s")
    expect_equal((await kept).status, 200, "the poll of the other token")
    response = await ann.request("DELETE", path)
    expect_equal((response.status, response.code), (404, "token_not_found"), "once more")


@check(TOKENS, "all other tokens are revoked at once; contradictory parameters are 400")
async def others(server: Server) -> None:
    ann = await _account(server)
    other = await _log_in(server, ann)
    for query in ("id=x", "id=0", "others=yes", f"id={other['id']}&others=true"):
        response = await ann.request("DELETE", f"/tokens/?{query}")
        expect_equal((response.status, response.code), (400, "invalid_query"), query)
    response = await ann.request("DELETE", "/tokens/?others=true")
    expect_equal(response.status, 204, "DELETE /tokens/?others=true")
    response = await server.request("GET", "/chats/", token=other["token"])
    expect_equal(response.status, 401, "the other token")
    expect_equal((await ann.get()).status, 200, "the token of the request")


@check(TOKENS, "a token does what its scopes permit, and may always revoke itself")
async def scopes(server: Server) -> None:
    ann = await _account(server)
    calls: dict[str, tuple[str, str, object]] = {
        "read": ("GET", "/chats/", None),
        "send": ("POST", "/chats/", {"user_id": ann.id, "message": "hai"}),
        "account": ("PATCH", "/users/", {"current_password": PASSWORD, "email": "a@b"}),
    }
    for scope in calls:
        token = (await _log_in(server, ann, scopes=[scope]))["token"]
        for needed, (method, path, body) in calls.items():
            response = await server.request(method, path, token=token, body=body)
            if needed == scope:
                expect(response.status < 300, f"{method} {path}: {response.status} with {scope}")
            else:
                expected = (403, "insufficient_scope")
                what = f"{method} {path} with {scope}"
                expect_equal((response.status, response.code), expected, what)
        response = await server.request("DELETE", "/tokens/", token=token)
        expect_equal(response.status, 204, f"DELETE /tokens/ with {scope}")


@check(TOKENS, "the email is changed with the password, and only with it")
async def email(server: Server) -> None:
    ann = await _account(server)
    response = await _change(ann, email="new@example.org")
    expect_equal((response.status, response.json["email"]), (200, "new@example.org"), "the change")
    expect_equal((await ann.request("GET", "/users/")).json["email"], "new@example.org", "email")
    response = await _change(ann, current_password="wrong", email="x@example.org")
    expect_equal((response.status, response.code), (403, "wrong_password"), "a wrong password")
    response = await _change(ann)
    expect_equal((response.status, response.code), (400, "invalid_body"), "no change")


@check(TOKENS, "a new password ends every other session and its polls within a second")
async def password(server: Server) -> None:
    ann = await _account(server)
    other = await _log_in(server, ann)
    basic = server.basic_auth(ann)
    query = "/chats/?since=now&wait=9"
    held = [
        server.start(server.request("GET", query, token=other["token"])),
        server.start(server.request("GET", query, headers=basic)),
    ]
    kept = server.start(ann.get("?since=now&wait=2"))
    await server.pause(0.5)
    expect_equal((await _change(ann, password="another password")).status, 200, "the change")
    for what, poll in zip(("another token", "the old password"), held, strict=True):
        response = await poll
        expect_equal(response.status, 401, f"the poll of {what}")
        expect(response.seconds < 0.5 + SOON, f"it ended after {response.seconds:.1f} s")
    expect_equal((await kept).status, 200, "the poll of the token that was used")
    expect_equal((await server.request("GET", "/chats/", headers=basic)).status, 401, "Basic")
    expect_equal((await ann.get()).status, 200, "the token that was used")


@check(TOKENS, "users are found by the beginning of their names, or the directory is closed")
async def directory(server: Server) -> None:
    ann = await _account(server)
    bob = await server.new_account()
    response = await ann.request("GET", f"/users/?prefix={bob.name[:-1].upper()}")
    if response.status == 403:
        expect_equal(response.code, "directory_closed", "the code")
        return
    names = [user["username"] for user in response.json["users"]]
    expect(bob.name in names, f"{bob.name} is not among {names}")
    expect_equal(names, sorted(names), "the order")
    for query in ("prefix=x&limit=0", "prefix=x&limit=101", "prefix=x&user_id=1"):
        response = await ann.request("GET", f"/users/?{query}")
        expect_equal((response.status, response.code), (400, "invalid_query"), query)
