"""The API of chatd, which `bench.stock` serves as well."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from bench.delivery_check import Received
from bench.fixtures import Fixtures
from bench.http_stream import HTTPStream
from bench.load_client import Address, Connection, LoadClient, connect, exchange
from bench.protocols import UnexpectedResponse

PATH = "/api/v1/chats/"
PAGE = 10
FULL_CHECK = 64
"""One page in this many is decoded and checked; in the others, messages are counted."""


def get(query: str, token: str, more: str = "") -> bytes:
    """A GET request to `PATH`."""
    return (
        f"GET {PATH}{query} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
    ).encode("ascii")


class ChatAPI:
    """`ChatProtocol` and `StreamProtocol` of the API, with the accounts of `fixtures`."""

    def __init__(self, address: Address, fixtures: Fixtures, wait: int = 50) -> None:
        self._address = address
        self._fixtures = fixtures
        self._wait = wait

    def follower(self, client: LoadClient, user: int) -> ChatFollower:
        return ChatFollower(
            client.connect(self._address), self._fixtures.users[user].token, self._wait
        )

    def stream(self, user: int) -> ChatStream:
        return ChatStream(self._address, self._fixtures.users[user].token)

    def sender(self, client: LoadClient, number: int) -> ChatSender:
        senders = self._fixtures.senders
        ids = [account.id for account in self._fixtures.users]
        return ChatSender(client.connect(self._address), senders[number % len(senders)].token, ids)

    def reader(self, client: LoadClient, user: int, page: int) -> ChatReader:
        return ChatReader(client.connect(self._address), self._fixtures.users[user].token, page)

    def counts(self, users: Iterable[int]) -> int:
        total = 0
        with connect(self._address) as endpoint:
            for user in users:
                request = get("", self._fixtures.users[user].token)
                status, _, body = exchange(endpoint, request)
                if status != 200:
                    raise UnexpectedResponse(f"{status} {body!r}")
                total += json.loads(body)["meta"]["count"]
        return total


class ChatFollower:
    """Passes the cursor of each response to the next poll."""

    __slots__ = ("_after", "_before", "_cursor", "_join", "connection")

    def __init__(self, connection: Connection, token: str, wait: int) -> None:
        self.connection = connection
        self._join = get("?since=now", token)
        self._cursor = "now"
        self._before = f"GET {PATH}?since="
        self._after = (
            f"&wait={wait} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"
        )

    def join(self) -> bytes:
        return self._join

    def poll(self) -> bytes:
        return (self._before + self._cursor + self._after).encode("ascii")

    def receive(self, status: int, head: bytes, body: bytes) -> list[Received]:
        if status != 200:
            raise UnexpectedResponse(f"{status} {body!r}")
        document = json.loads(body)
        self._cursor = document["meta"]["cursor"]
        return [Received(message["message"], message["seq"]) for message in document["messages"]]


class StreamedMessage(msgspec.Struct):
    """What is checked of a message."""

    message: str
    seq: int


class Line(msgspec.Struct):
    """What is checked of a line of a stream."""

    message: StreamedMessage | None = None
    keepalive: bool = False


class ChatStream:
    """Receives messages as lines of JSON, from the time on when it is opened."""

    __slots__ = ("_pieces", "socket")

    def __init__(self, address: Address, token: str) -> None:
        accept = "Accept: application/x-ndjson\r\n"
        stream = HTTPStream(address, get("?since=now", token, accept), b"\n")
        self.socket = stream.socket
        self._pieces = stream.pieces
        if read_lines(stream.first):
            raise UnexpectedResponse(f"a new stream begins with {stream.first!r}")

    def receive(self, data: bytes) -> list[Received]:
        return read_lines(self._pieces(data))


_decode_line = msgspec.json.Decoder(Line).decode


def read_lines(lines: Iterable[bytes]) -> list[Received]:
    """The messages in lines of a stream; raises `UnexpectedResponse` at what ends the stream."""
    found = []
    for line in lines:
        decoded = _decode_line(line)
        message = decoded.message
        if message is not None:
            found.append(Received(message.message, message.seq))
        elif not decoded.keepalive:
            raise UnexpectedResponse(f"{line!r} in a stream")
    return found


class ChatSender:
    """Sends messages with a bearer token."""

    def __init__(self, connection: Connection, token: str, ids: list[int]) -> None:
        self.connection = connection
        self._ids = ids
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )

    def send(self, recipient: int, text: str) -> bytes:
        body = f'{{"user_id":{self._ids[recipient]},"message":"{text}"}}'
        return f"{self._head}{len(body)}\r\n\r\n{body}".encode("ascii")

    def acknowledge(self, status: int, head: bytes, body: bytes) -> None:
        if status != 201:
            raise UnexpectedResponse(f"{status} {body!r}")


class ChatReader:
    """Reads a full page."""

    def __init__(self, connection: Connection, token: str, page: int) -> None:
        self.connection = connection
        self._request = get(f"?page={page}", token)
        self._run_pages = 0

    def read(self) -> bytes:
        return self._request

    def check(self, status: int, head: bytes, body: bytes) -> None:
        if status != 200 or body.count(b'"seq":') != PAGE:
            raise UnexpectedResponse(f"{status} {body!r}")
        self._run_pages += 1
        if self._run_pages % FULL_CHECK == 1:
            seqs = [message["seq"] for message in json.loads(body)["messages"]]
            if seqs != list(range(seqs[0], seqs[0] - PAGE, -1)):
                raise UnexpectedResponse(f"a page with {seqs}")
