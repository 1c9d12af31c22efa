"""`chatd doctor`: what lies between this machine and a service, proxies above all."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, structs
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from chatd.cli.errors import CommandError
from chatd.cli.printing import escape_controls
from chatd.cli.session import Session
from chatd.client import APIError, Unreachable
from chatd.client.exchange import Requester, TimedOut, exchange, read_body, send_request, within

HOLDS: Final = (5, 25, 35, 55)
"""The waits, in seconds, of polls that are tried; proxies often cut at 30 or 60."""
SLACK_SECONDS: Final = 15.0
FIRST_BYTES_SECONDS: Final = 5.0
"""A stream begins at once, unless something on the way keeps its beginning back."""
NEXT_BYTES_SECONDS: Final = 20.0
"""Then it is never silent for more than 15 seconds."""
MAX_SKEW_SECONDS: Final = 5.0
API: Final = "/api/v1"


class Hold(Struct, frozen=True):
    """A poll: whether it was held for its whole `wait`, and what happened after how long."""

    wait: int
    survived: bool
    seconds: float
    outcome: str


class Diagnosis(Struct, frozen=True):
    """What was found; `clock_skew` is how many seconds the service's clock is ahead."""

    url: str
    http_version: str
    server: str | None
    via: str | None
    round_trip: float
    clock_skew: float | None
    client_address: str | None
    stream: str
    buffered: bool
    holds: tuple[Hold, ...]
    longest_hold: int
    problems: tuple[str, ...]


class _Body(Protocol):
    """The body of a response that does not end, of which only the arrival counts."""

    def __init__(self) -> None:
        self._waiting: Deferred[None] | None = None

    async def more(self) -> None:
        """Wait for the next bytes; fails if the connection is lost."""
        waiting = self._waiting = Deferred()
        await waiting

    def dataReceived(self, data: bytes) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(reason)

    def close(self) -> None:
        """Close the connection."""
        self._waiting = None
        if self.transport is not None:
            self.transport.loseConnection()


class Doctor:
    """Examines the service at `url` with the token of an account.

    `now` returns seconds since the Unix epoch.
    """

    def __init__(
        self,
        http: Requester,
        clock: IReactorTime,
        now: Callable[[], float],
        url: str,
        token: str,
    ) -> None:
        self._http = http
        self._clock = clock
        self._now = now
        self._url = url
        self._api = url.rstrip("/").removesuffix(API) + API
        self._headers = {"Authorization": f"Bearer {token}"}

    async def examine(self) -> Diagnosis:
        """Examine everything, which takes a minute; raises `Unreachable`, `CommandError`."""
        began = self._clock.seconds()
        version, headers = await within(self._clock, SLACK_SECONDS, self._first_request())
        round_trip = self._clock.seconds() - began
        skew = _skew(headers.get("date"), self._now() - round_trip / 2)
        address = await self._address()
        streaming = Deferred.fromCoroutine(self._stream())
        holding = [Deferred.fromCoroutine(self._hold(wait)) for wait in HOLDS]
        holds = tuple(await gatherResults(holding))
        stream, buffered = await streaming
        longest = max((hold.wait for hold in holds if hold.survived), default=0)
        problems = []
        if skew is not None and abs(skew) > MAX_SKEW_SECONDS:
            problems.append("the clocks differ: set both by NTP")
        if buffered:
            problems.append("something buffers streams: switch that off in the proxy")
        if longest < HOLDS[-1]:
            problems.append(
                f"polls are cut: let the proxy wait for 70 s, or clients wait for {longest} s only"
            )
        return Diagnosis(
            self._url,
            version,
            headers.get("server"),
            headers.get("via"),
            round(round_trip, 3),
            skew,
            address,
            stream,
            buffered,
            holds,
            longest,
            tuple(problems),
        )

    async def _first_request(self) -> tuple[str, dict[str, str]]:
        """HTTP version and headers of the response to an authenticated request."""
        response = await send_request(self._http, "GET", f"{self._api}/users/", self._headers, [])
        await read_body(response)
        if response.code != 200:
            raise CommandError(f"{self._url} answers {response.code} to GET /users/")
        name, major, minor = response.version
        headers = {
            key.decode("latin-1").lower(): values[-1].decode("latin-1")
            for key, values in response.headers.getAllRawHeaders()
        }
        return f"{name.decode('latin-1')}/{major}.{minor}", headers

    async def _address(self) -> str | None:
        """As whom the service sees this machine; None if it is too old to tell."""
        response = await exchange(
            self._http,
            self._clock,
            "GET",
            f"{self._api}/address",
            seconds=SLACK_SECONDS,
            headers=self._headers,
        )
        if response.status != 200:
            return None
        return str(msgspec.json.decode(response.body)["address"])

    async def _stream(self) -> tuple[str, bool]:
        """What became of a stream, and whether it was buffered."""
        began = self._clock.seconds()
        body = _Body()
        silence = FIRST_BYTES_SECONDS
        try:
            status = await within(self._clock, silence, self._begin_stream(body))
            if status != 200:
                return f"HTTP {status}", True
            first = self._clock.seconds() - began
            silence = NEXT_BYTES_SECONDS
            await within(self._clock, silence, body.more())
        except TimedOut:
            which = "first" if silence == FIRST_BYTES_SECONDS else "further"
            return f"no {which} bytes in {silence:g} s", True
        except Unreachable as error:
            return str(error), True
        finally:
            body.close()
        return f"first bytes after {first:.3f} s", False

    async def _begin_stream(self, body: _Body) -> int:
        headers = {**self._headers, "Accept": "application/x-ndjson"}
        params = [("since", "now")]
        response = await send_request(self._http, "GET", f"{self._api}/chats/", headers, params)
        if response.code == 200:
            response.deliverBody(body)
            await body.more()
        return int(response.code)

    async def _hold(self, wait: int) -> Hold:
        began = self._clock.seconds()
        try:
            response = await exchange(
                self._http,
                self._clock,
                "GET",
                f"{self._api}/chats/",
                seconds=wait + SLACK_SECONDS,
                headers=self._headers,
                params=[("since", "now"), ("wait", str(wait))],
            )
            outcome, survived = _outcome(response.status, response.body)
        except Unreachable as error:
            outcome, survived = str(error), False
        return Hold(wait, survived, round(self._clock.seconds() - began, 1), outcome)


def _outcome(status: int, body: bytes) -> tuple[str, bool]:
    """What became of a poll, and whether it was held until its end."""
    if status != 200:
        return f"HTTP {status}", False
    try:
        timed_out = bool(msgspec.json.decode(body)["meta"]["timed_out"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "not the answer of chatd", False
    return ("held", True) if timed_out else ("answered early", False)


def _skew(date: str | None, now: float) -> float | None:
    if date is None:
        return None
    # The header has whole seconds: on average, half a second has passed since.
    return round(parsedate_to_datetime(date).timestamp() + 0.5 - now, 1)


async def doctor(args: argparse.Namespace, session: Session) -> None:
    """Examine a service, and print what was found; fails if that is not well."""
    pool = HTTPConnectionPool(session.reactor, persistent=False)
    http = HTTPClient(Agent(session.reactor, pool=pool, connectTimeout=SLACK_SECONDS))
    token, account = await _token(args, session)
    try:
        found = await Doctor(http, session.reactor, time.time, args.url, token).examine()
    finally:
        if account is not None:
            await account.delete_account()
    if args.json:
        print(json.dumps(structs.asdict(found), default=structs.asdict))
    else:
        print(escape_controls("\n".join(report(found))))
    if found.problems:
        raise CommandError("; ".join(found.problems))


async def _token(args: argparse.Namespace, session: Session) -> tuple[str, Any]:
    """A token, and the client of the account that was made for it and has to be deleted."""
    if args.token_file is not None:
        return _read_token(args.token_file), None
    login = session.file.load()
    if login is not None and login.server.rstrip("/") == args.url.rstrip("/"):
        return login.token, None
    client = session.connect(args.url)
    name, password = f"doctor-{secrets.token_hex(8)}", secrets.token_urlsafe(18)
    try:
        await client.register(name, f"{name}@localhost.invalid", password)
    except APIError as error:
        if error.code != "registration_closed":
            raise
        raise CommandError(
            f"registration is closed: use --token-file, or chatd login NAME --server {args.url}"
        ) from None
    return await client.log_in(name, password), client


def _read_token(path: str) -> str:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} does not contain a token") from None
    return text.strip()


def report(found: Diagnosis) -> list[str]:
    """The lines for people."""
    skew = found.clock_skew
    rows = [
        ("service", found.url),
        ("HTTP version", found.http_version),
        ("server", found.server or "unknown"),
        ("proxies (Via)", found.via or "none that tell"),
        ("round trip", f"{found.round_trip * 1000:.0f} ms"),
        ("clock", "unknown" if skew is None else f"{skew:+.1f} s from here"),
        ("client address", found.client_address or "unknown: the service is too old to tell"),
        ("stream", f"{found.stream}{', buffered' if found.buffered else ', not buffered'}"),
        *(
            (f"poll of {hold.wait} s", f"{hold.outcome} after {hold.seconds:g} s")
            for hold in found.holds
        ),
        ("longest hold", f"{found.longest_hold} s"),
    ]
    return [f"{name:<15} {escape_controls(text)}" for name, text in rows]
