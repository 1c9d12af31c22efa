"""The attacks: each a coroutine that attacks a daemon until it is cancelled.

They come from another address than the innocent clients. Those of `tests.hostile.floods` use
sockets directly, since they are about connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from chatd.store.results import MAX_BLOCKS
from tests.daemon import CHATS, TOKENS, USERS

ADDRESS: Final = "127.0.0.66"
"""Where attacks come from."""

ADDRESSES: Final = (ADDRESS, "127.0.0.67", "127.0.0.68", "127.0.0.69")
"""Where attacks of several addresses come from."""

WIDE: Final = "\x01" * 16_384
"""The text that takes most bytes in JSON."""

WIDE_MESSAGES: Final = 100
"""Those in the inbox of the first account."""

FULL: Final = 3000
"""Wide messages of an inbox that is to be emptied."""

LARGE: Final = "x" * 16_384
"""The text that takes most bytes in an answer that is cut."""

RECIPIENTS: Final = 20
"""To whom each account writes in `deliveries`."""

POLLS: Final = 10_000
"""Polls of one address in `many_polls`."""


class Target(msgspec.Struct):
    """A daemon, or the proxy in front of it, which has TLS, and the accounts of the attacker.

    `tokens` are by the id of the user.
    """

    port: int
    tls_port: int
    is_proxy: bool
    tokens: dict[int, str]

    @property
    def users(self) -> list[int]:
        """The ids of the accounts. The first one has a hundred wide messages."""
        return list(self.tokens)

    async def connect(
        self, address: str = ADDRESS
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from an address; retried for as long as it is refused."""
        options: dict[str, Any] = {"limit": 1 << 16, "local_addr": (address, 0)}
        if self.is_proxy:
            options["ssl"] = _TLS
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self.port, **options)
            except OSError:
                await asyncio.sleep(0.02)


_TLS: Final = ssl.create_default_context()
_TLS.check_hostname = False
_TLS.verify_mode = ssl.CERT_NONE

Run = Callable[[Target], Awaitable[None]]


class Attack(NamedTuple):
    """An attack, and what it needs: accounts, descriptors of the daemon, messages of one inbox, how
    many seconds at least, if its effects are slow, wide messages of every inbox, whether every
    account has large messages, a hundred to the next one and one to each of the others, and how
    many tokens and blocks every account has."""

    run: Run
    accounts: int
    descriptors: int
    messages: int
    seconds: float = 0.0
    wide_messages: int = 0
    large: bool = False
    listed_tokens: int = 0
    listed_blocks: int = 0


ATTACKS: dict[str, Attack] = {}


def attack(
    *,
    accounts: int = 40,
    descriptors: int = 1500,
    messages: int = 0,
    seconds: float = 0.0,
    wide_messages: int = 0,
    large: bool = False,
    listed_tokens: int = 0,
    listed_blocks: int = 0,
) -> Callable[[Run], Run]:
    """Add an attack to the table, under the name of the function.

    By default there are as many accounts as one address may register at once, and so few
    descriptors that an attack can use them up.
    """

    def add(function: Run) -> Run:
        name = getattr(function, "__name__", "")
        ATTACKS[name] = Attack(
            function,
            accounts,
            descriptors,
            messages,
            seconds,
            wide_messages,
            large,
            listed_tokens,
            listed_blocks,
        )
        return function

    return add


async def swarm(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """`count` clients, each of which begins again when it ends."""

    async def endless(number: int) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await one(number)
            await asyncio.sleep(0.001)

    await asyncio.gather(*(endless(number) for number in range(count)))


def request(
    method: str, target: str, token: str | None = None, body: bytes = b"", *more: str
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: chat.example", *more]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def unread(target: Target, data: bytes) -> None:
    """Send requests and read nothing, for as long as the server permits."""
    _reader, writer = await target.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        writer.write(data)
        await asyncio.sleep(60)
    finally:
        writer.transport.abort()


async def answered(target: Target, data: bytes, responses: int = 1, address: str = ADDRESS) -> None:
    """Send requests, and read until the last response has begun."""
    reader, writer = await target.connect(address)
    try:
        writer.write(data)
        seen = 0
        while seen < responses and (received := await reader.read(1 << 16)):
            seen += received.count(b"HTTP/1.1 ")
    finally:
        writer.transport.abort()


async def repeated(target: Target, data: bytes, responses: int, address: str = ADDRESS) -> None:
    """Send requests again whenever so many responses have begun, on one connection."""
    reader, writer = await target.connect(address)
    try:
        while True:
            writer.write(data)
            seen = 0
            while seen < responses:
                received = await reader.read(1 << 16)
                if not received:
                    return
                seen += received.count(b"HTTP/1.1 ")
    finally:
        writer.transport.abort()


@attack()
async def unread_pages(target: Target) -> None:
    """600 connections ask for the largest page there is, and read nothing."""
    data = request("GET", CHATS + "?limit=100", target.tokens[target.users[0]])
    await swarm(600, lambda _: unread(target, data))


@attack()
async def unread_polls(target: Target) -> None:
    """1,000 polls from the beginning, and nothing is read."""
    data = request("GET", CHATS + "?since=0", target.tokens[target.users[0]])
    await swarm(1000, lambda _: unread(target, data))


@attack()
async def abandoned_reads(target: Target) -> None:
    """Reads of conversations that are reset right after they were asked for."""
    user = target.users[0]
    data = request("GET", f"{CHATS}?with={user}", target.tokens[user])

    async def one(_: int) -> None:
        _reader, writer = await target.connect()
        writer.write(data)
        await asyncio.sleep(0.0003)
        reset(writer)

    await swarm(50, one)


@attack()
async def pipelined_404(target: Target) -> None:
    """400 connections pipeline sixteen requests for nothing."""
    data = request("GET", "/nothing") * 16
    await swarm(400, lambda _: answered(target, data, 16))


@attack()
async def escaped_queries(target: Target) -> None:
    """400 connections of one address send queries of thousands of escapes, without an account."""
    data = request("GET", f"{CHATS}?limi=1&{'%&' * 3950}", "unknown")
    await swarm(400, lambda _: repeated(target, data, 1))


@attack()
async def escaped_queries_of_users(target: Target) -> None:
    """The same on forty connections of three addresses, with accounts."""
    query = f"{CHATS}?limi=1&{'%&' * 3950}"
    data = [request("GET", query, token) for token in target.tokens.values()]
    await swarm(40, lambda number: repeated(target, data[number], 1, ADDRESSES[number % 3]))


@attack()
async def many_conditions(target: Target) -> None:
    """Forty connections of three addresses ask for the page with thousands of ETags."""
    data = request("GET", "/", None, b"", f"If-None-Match: {',' * 16_000}")
    await swarm(40, lambda number: repeated(target, data, 1, ADDRESSES[number % 3]))


@attack()
async def repeated_members(target: Target) -> None:
    """200 connections log in with a body in which a member is repeated thousands of times."""
    members = b",".join([b'"label":null'] * 9000)
    body = b'{"username":"x",%b,"password":"x"}' % members
    data = request("POST", TOKENS, None, body)
    await swarm(200, lambda _: repeated(target, data, 1))


@attack()
async def pipelined_description(target: Target) -> None:
    """100 connections ask for the description of the API again and again."""
    data = request("GET", "/api/v1/openapi.json") * 4
    await swarm(100, lambda _: answered(target, data, 4))


@attack()
async def connections(target: Target) -> None:
    """More connections than there are descriptors."""

    async def one(_: int) -> None:
        reader, writer = await target.connect()
        await reader.read(1000)
        writer.transport.abort()
        await asyncio.sleep(0.1)

    await swarm(2000, one)


@attack()
async def log_ins(target: Target) -> None:
    """200 log-ins with wrong passwords under way all the time."""
    numbers = itertools.count()

    async def one(_: int) -> None:
        body = json.dumps({"username": f"nobody{next(numbers)}", "password": "wrong"}).encode()
        await answered(target, request("POST", TOKENS, None, body))

    await swarm(200, one)


@attack()
async def unknown_tokens(target: Target) -> None:
    """400 connections pipeline sixteen requests with tokens that do not exist."""
    numbers = itertools.count()

    async def one(_: int) -> None:
        data = [request("GET", CHATS, f"chatd_unknown{next(numbers)}") for _ in range(16)]
        await answered(target, b"".join(data), 16)

    await swarm(400, one)


@attack()
async def registrations(target: Target) -> None:
    """Accounts are registered as fast as it goes."""
    numbers = itertools.count()

    async def one(_: int) -> None:
        account = {"username": f"spam{next(numbers)}", "email": "a@b", "password": "secret"}
        await answered(target, request("POST", USERS, None, json.dumps(account).encode()))

    await swarm(50, one)


@attack()
async def slow_heads(target: Target) -> None:
    """500 heads that come byte by byte."""

    async def one(_: int) -> None:
        _reader, writer = await target.connect()
        for octet in request("GET", CHATS) + b"x" * 100:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.5)

    await swarm(500, one)


@attack()
async def slow_bodies(target: Target) -> None:
    """500 bodies that come byte by byte."""
    token = target.tokens[target.users[0]]
    head = request("POST", CHATS, token, b"", "Content-Type: application/json")
    head = head[:-2] + b"Content-Length: 100000\r\n\r\n"

    async def one(_: int) -> None:
        _reader, writer = await target.connect()
        writer.write(head)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.5)

    await swarm(500, one)


@attack()
async def slow_readers(target: Target) -> None:
    """200 large answers of which a little is read at a time."""
    data = request("GET", CHATS + "?limit=10", target.tokens[target.users[0]])

    async def one(_: int) -> None:
        reader, writer = await target.connect()
        writer.write(data)
        while await reader.read(100):
            await asyncio.sleep(0.5)

    await swarm(200, one)


@attack(accounts=POLLS // 8, descriptors=20_000)
async def many_polls(target: Target) -> None:
    """10,000 polls of one address, of as many accounts as that takes, renewed when they end."""
    users = target.users
    data = [
        request("GET", CHATS + "?since=now&wait=50", target.tokens[users[number % len(users)]])
        for number in range(POLLS)
    ]

    async def one(number: int) -> None:
        # Not all in the same moment: the attacker is not what is tested.
        await asyncio.sleep(number / POLLS)
        await answered(target, data[number])

    await swarm(POLLS, one)


@attack()
async def wake_ups(target: Target) -> None:
    """All polls of all accounts are woken by large messages as fast as it goes."""
    users = target.users[1:]

    async def one(number: int) -> None:
        user = users[number % len(users)]
        if number < 8 * len(users):
            data = request("GET", CHATS + "?since=now&wait=50", target.tokens[user])
        else:
            body = json.dumps({"user_id": user, "message": WIDE}).encode()
            data = request("POST", CHATS, target.tokens[user], body)
        await answered(target, data)

    await swarm(10 * len(users), one)


@attack()
async def edits(target: Target) -> None:
    """Every account edits a message of its own on five connections, as fast as it goes."""
    users = target.users
    numbers = itertools.count()

    async def one(number: int) -> None:
        user = users[number % len(users)]
        token = target.tokens[user]
        body = json.dumps({"user_id": user, "message": "first"}).encode()
        await answered(target, request("POST", CHATS, token, body))
        while True:
            text = f"edit {next(numbers)}"
            body = json.dumps({"user_id": user, "seq": 1, "message": text}).encode()
            await answered(target, request("PATCH", CHATS, token, body))

    await swarm(5 * len(users), one)


def _sends(target: Target, text: str) -> list[bytes]:
    """A request of each account that sends a text to itself."""
    return [
        request("POST", CHATS, token, json.dumps({"user_id": user, "message": text}).encode())
        for user, token in target.tokens.items()
    ]


@attack(accounts=300, descriptors=4000)
async def sends_300(target: Target) -> None:
    """300 accounts of one address send as fast as it goes, sixteen messages at a time."""
    data = _sends(target, "x")
    await swarm(len(data), lambda number: repeated(target, data[number] * 16, 16))


@attack(accounts=150, seconds=6.0)
async def large_sends(target: Target) -> None:
    """150 accounts of three addresses send the largest texts as fast as it goes."""
    data = _sends(target, LARGE)

    async def one(number: int) -> None:
        await repeated(target, data[number % len(data)], 1, ADDRESSES[number % 3])

    await swarm(3 * len(data), one)


@attack(accounts=48)
async def lists_48(target: Target) -> None:
    """48 accounts of one address ask for lists, and delete messages that do not exist."""
    data = [
        request(method, path, token) * 16
        for token in target.tokens.values()
        for method, path in (
            ("GET", "/api/v1/conversations/?limit=100"),
            ("GET", USERS),
            ("DELETE", f"{CHATS}?user_id={target.users[2]}&seq=1000000"),
        )
    ]
    await swarm(len(data), lambda number: repeated(target, data[number], 16))


async def _large_lists(target: Target, addresses: Sequence[str]) -> None:
    users = target.users
    data: list[tuple[bytes, str]] = []
    for user, peer, address in zip(
        users, [*users[1:], users[0]], itertools.cycle(addresses), strict=False
    ):
        data += [
            (request("GET", path, target.tokens[user]), address)
            for path in (
                "/api/v1/conversations/?limit=100",
                f"{CHATS}?with={peer}&limit=100",
                f"{CHATS}?since=0&changes=true&limit=100",
            )
        ]

    async def one(number: int) -> None:
        asked, address = data[number]
        await repeated(target, asked, 1, address)

    await swarm(len(data), one)


@attack(accounts=48, large=True)
async def large_lists(target: Target) -> None:
    """48 accounts of one address ask for lists of which less than half fits into an answer."""
    await _large_lists(target, [ADDRESS])


@attack(accounts=48, large=True)
async def large_lists_of_addresses(target: Target) -> None:
    """The same from four addresses."""
    await _large_lists(target, ADDRESSES)


async def _repeated_list(target: Target, path: str) -> None:
    """Every account asks for a list again and again, from one of three addresses."""
    data = [request("GET", path, token) for token in target.tokens.values()]
    await swarm(len(data), lambda number: repeated(target, data[number], 1, ADDRESSES[number % 3]))


@attack(accounts=48, listed_tokens=990)
async def token_lists(target: Target) -> None:
    """48 accounts of three addresses list as many tokens as an account may have."""
    await _repeated_list(target, TOKENS)


@attack(accounts=48, listed_blocks=MAX_BLOCKS)
async def block_lists(target: Target) -> None:
    """48 accounts of three addresses list as many blocks as an account may have."""
    await _repeated_list(target, "/api/v1/blocks/")


@attack(messages=100_000)
async def large_inbox(target: Target) -> None:
    """100 clients read an inbox of 100,000 messages in all ways, at any place."""
    user = target.users[1]
    peer = target.users[0]

    async def one(_: int) -> None:
        reader, writer = await target.connect()
        try:
            while True:
                query = random.choice(
                    [
                        "?since=0&limit=100",
                        f"?page={random.randint(1, 1000)}&limit=100",
                        f"?with={peer}&limit=100",
                        f"?page={random.randint(1, 10_000)}",
                    ]
                )
                writer.write(request("GET", CHATS + query, target.tokens[user]))
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
        finally:
            writer.transport.abort()

    await swarm(100, one)


@attack(accounts=200, seconds=10.0)
async def deliveries(target: Target) -> None:
    """Two hundred accounts of four addresses write to others, and all return their cursors."""
    users = target.users
    connections = asyncio.Semaphore(64)

    async def all_send(data: Callable[[int], list[bytes]]) -> None:
        async def one(number: int) -> None:
            requests = data(number)
            async with connections:
                address = ADDRESSES[number % len(ADDRESSES)]
                with contextlib.suppress(OSError):
                    await answered(target, b"".join(requests), len(requests), address)

        await asyncio.gather(*map(one, range(len(users))))

    def messages(number: int) -> list[bytes]:
        token = target.tokens[users[number]]
        others = [users[(number + each) % len(users)] for each in range(1, RECIPIENTS + 1)]
        bodies = [b'{"user_id":%d,"message":"hello"}' % other for other in others]
        return [request("POST", CHATS, token, body) for body in bodies]

    def conversations(number: int) -> list[bytes]:
        return [request("GET", "/api/v1/conversations/", target.tokens[users[number]])]

    rounds = 0

    def cursors(number: int) -> list[bytes]:
        # The first one has messages before.
        seq = rounds * RECIPIENTS + (0 if number else WIDE_MESSAGES)
        return [request("GET", f"{CHATS}?since={seq}", target.tokens[users[number]])]

    await all_send(conversations)
    while True:
        rounds += 1
        await all_send(messages)
        await all_send(cursors)


@attack(accounts=6, seconds=15.0, wide_messages=FULL)
async def removals(target: Target) -> None:
    """Six accounts empty inboxes of 48 MB each."""
    data = [request("DELETE", f"{CHATS}?up_to={FULL}", token) for token in target.tokens.values()]

    async def one(number: int) -> None:
        await answered(target, data[number])
        # Then there is nothing left.
        await asyncio.sleep(60)

    await swarm(len(data), one)


@attack(accounts=6, seconds=25.0, wide_messages=FULL)
async def deleted_accounts(target: Target) -> None:
    """Six accounts with inboxes of 48 MB each are deleted, with what they have sent."""
    data = [request("DELETE", f"{USERS}?erase=true", token) for token in target.tokens.values()]

    async def one(number: int) -> None:
        await answered(target, data[number])
        await asyncio.sleep(60)

    await swarm(len(data), one)


@attack()
async def json_bombs(target: Target) -> None:
    """Bodies that are costly to read: nested, repetitive, with numbers without end."""
    bombs = [
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"user_id":' + b"9" * 100_000 + b"}",
        b'{"user_id":1,"message":"' + b"\\u0001" * 16_000 + b'","message":"x"}',
        b"{" + b",".join(b'"%d":0' % number for number in range(10_000)) + b"}",
    ]
    token = target.tokens[target.users[0]]
    data = [request("POST", CHATS, token, bomb) for bomb in bombs]
    await swarm(20, lambda number: answered(target, data[number % len(data)]))


@attack()
async def chunks_of_line_ends(target: Target) -> None:
    """Bodies in chunks of nothing but line ends, or of a byte each, on ten connections."""
    head = request("POST", TOKENS, None, b"", "Transfer-Encoding: chunked")
    bodies = [
        b"1fff0\r\n" + b"\r\n" * 0xFFF8 + b"\r\n0\r\n\r\n",
        b"1\r\nx\r\n" * 0x1FFF0 + b"0\r\n\r\n",
    ]
    await swarm(10, lambda number: answered(target, head + bodies[number % 2]))


@attack()
async def readiness(target: Target) -> None:
    """400 connections pipeline sixteen questions whether the daemon is ready."""
    data = request("GET", "/readyz") * 16
    await swarm(400, lambda _: answered(target, data, 16))


@attack(descriptors=6000)
async def half_heads(target: Target) -> None:
    """3,000 connections send half a head in the same moment, and no more."""

    async def one(_: int) -> None:
        reader, writer = await target.connect()
        try:
            writer.write(b"GET / HTTP/1.1\r\n")
            await reader.read()
        finally:
            writer.transport.abort()

    await swarm(3000, one)


@attack(descriptors=6000)
async def unread_files(target: Target) -> None:
    """3,000 connections without an account ask for the description, and read nothing."""
    data = request("GET", "/api/v1/openapi.json") * 12
    await swarm(3000, lambda _: unread(target, data))


@attack()
async def unknown_parameters(target: Target) -> None:
    """Queries of two thousand unknown parameters, on forty connections."""
    query = "&".join(f"{number:x}" for number in range(2000))[:8000]
    data = request("GET", f"{CHATS}?{query}", "unknown")
    await swarm(40, lambda _: answered(target, data))


@attack()
async def handshakes(target: Target) -> None:
    """500 TLS handshakes that are never finished."""
    hello = bytes.fromhex("16030102000100")

    async def one(_: int) -> None:
        _reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.tls_port, local_addr=(ADDRESS, 0)
        )
        writer.write(hello)
        await asyncio.sleep(60)

    await swarm(500, one)


@attack()
async def hellos(target: Target) -> None:
    """500 connections ask for a TLS handshake, for which the server signs, and are reset."""
    outgoing = ssl.MemoryBIO()
    client = _TLS.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="chat.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()

    async def one(_: int) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.tls_port, local_addr=(ADDRESS, 0)
        )
        writer.write(hello)
        await reader.read(1)
        reset(writer)

    await swarm(500, one)


@attack(seconds=40.0)
async def finished_handshakes(target: Target) -> None:
    """100 TLS connections that are reset as soon as they are there."""

    async def one(_: int) -> None:
        _reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.tls_port, local_addr=(ADDRESS, 0), ssl=_TLS
        )
        reset(writer)

    await swarm(100, one)


async def _cut(target: Target, count: int, data: Sequence[bytes]) -> None:
    """Requests from three addresses, of which each answer is reset after its first bytes."""
    sources = itertools.cycle(ADDRESSES[:3])
    requests = itertools.cycle(data)

    async def one(_: int) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.tls_port, local_addr=(next(sources), 0), ssl=_TLS, limit=1 << 13
        )
        try:
            writer.write(next(requests))
            await reader.read(100)
        finally:
            reset(writer)

    await swarm(count, one)


@attack(wide_messages=60)
async def streams_cut(target: Target) -> None:
    """100 streams of everything, over TLS, that are reset after their first bytes."""
    accept = "Accept: text/event-stream"
    path = f"{CHATS}?since=0&changes=true"
    data = [request("GET", path, token, b"", accept) for token in target.tokens.values()]
    await _cut(target, 100, data)


@attack()
async def pages_cut(target: Target) -> None:
    """200 of the largest pages, over TLS, that are reset after their first bytes."""
    token = target.tokens[target.users[0]]
    await _cut(target, 200, [request("GET", CHATS + "?limit=100", token)])


@attack()
async def parts_of_bodies(target: Target) -> None:
    """1,000 large bodies of which the end is missing, without an account."""
    size = 128 * 1024
    data = request("POST", CHATS, None, b"x" * size)[:-1]

    async def one(_: int) -> None:
        reader, writer = await target.connect()
        try:
            writer.write(data)
            await reader.read(1)
        finally:
            writer.transport.abort()

    await swarm(1000, one)


@attack()
async def small_records(target: Target) -> None:
    """TLS records of a byte each, as fast as it goes, on twenty connections."""
    head = request("POST", TOKENS, None, b"", "Content-Length: 100000")

    async def one(_: int) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.tls_port, local_addr=(ADDRESS, 0), ssl=_TLS
        )
        try:
            writer.write(head)
            for _ in range(100):
                for _ in range(1000):
                    writer.write(b"x")
                await writer.drain()
            await reader.read(1)
        finally:
            writer.transport.abort()

    await swarm(20, one)


@attack()
async def requests_in_small_records(target: Target) -> None:
    """Requests in TLS records of a byte each, on sixty connections of three addresses."""
    tokens = list(target.tokens.values())

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection(
            *("127.0.0.1", target.tls_port), local_addr=(ADDRESSES[number % 3], 0), ssl=_TLS
        )
        data = request("GET", USERS, tokens[number % len(tokens)])
        try:
            for _ in range(100):
                for byte in data:
                    writer.write(bytes((byte,)))
                await writer.drain()
                if not await reader.read(1 << 16):
                    return
        finally:
            writer.transport.abort()

    await swarm(60, one)


@attack()
async def half_open(target: Target) -> None:
    """Connections without a word, opened and reset as fast as it goes."""

    async def one(_: int) -> None:
        _reader, writer = await target.connect()
        reset(writer)

    await swarm(100, one)
