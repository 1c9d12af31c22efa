"""Faye, in the Bayeux protocol over long polls and over WebSocket."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping

import msgspec

from bench.delivery_check import Received
from bench.load_client import Address, Connection, LoadClient, connect, exchange
from bench.protocols import UnexpectedResponse
from bench.websocket import FrameReader, exchange_text, frame, open_websocket, split_frame

PATH = "/faye"


class Data(msgspec.Struct):
    """The content of a message."""

    m: str


class Envelope(msgspec.Struct):
    """A message, or the response to one."""

    channel: str
    successful: bool | None = None
    data: Data | None = None


_decode = msgspec.json.Decoder(list[Envelope]).decode


def post(body: str) -> bytes:
    """A request with messages."""
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode("ascii")


def handshake(ask: Callable[[str], bytes], connection_type: str) -> str:
    """The id of a new client; `ask` sends messages and returns the response."""
    greeting = {
        "channel": "/meta/handshake",
        "version": "1.0",
        "supportedConnectionTypes": [connection_type],
    }
    client: str = _ask(ask, greeting)["clientId"]
    return client


def subscribe(ask: Callable[[str], bytes], client: str, channel: str) -> None:
    """Subscribe a client."""
    _ask(ask, {"channel": "/meta/subscribe", "clientId": client, "subscription": channel})


def connect_message(client: str, connection_type: str) -> str:
    """A message that the server responds to when it has messages, or at its timeout."""
    message = {
        "channel": "/meta/connect",
        "clientId": client,
        "connectionType": connection_type,
    }
    return json.dumps([message])


def _ask(ask: Callable[[str], bytes], message: Mapping[str, object]) -> dict[str, str]:
    response = ask(json.dumps([message]))
    [document] = json.loads(response)
    if not document["successful"]:
        raise UnexpectedResponse(f"{response!r}")
    found: dict[str, str] = document
    return found


def received(body: bytes) -> list[Received]:
    """The messages in a response or frame."""
    found = []
    for each in _decode(body):
        if each.data is not None:
            found.append(Received(each.data.m, None))
        elif not each.successful:
            raise UnexpectedResponse(f"{body!r}")
    return found


def publication(prefix: str, recipient: int, client: str, text: str) -> str:
    """A message to a user."""
    address = f'"channel":"{prefix}{recipient}","clientId":"{client}"'
    return f'[{{{address},"data":{{"m":"{text}"}},"id":"1"}}]'


def acknowledge(status: int, body: bytes) -> None:
    """Raise `UnexpectedResponse` unless a publication has succeeded."""
    if status != 200 or b'"successful":true' not in body:
        raise UnexpectedResponse(f"{status} {body!r}")


class FayePolls:
    """`ChatProtocol`: HTTP requests."""

    def __init__(self, address: Address) -> None:
        self._address = address
        # New for each run, so that subscriptions of an earlier one have no part in it.
        self._prefix = f"/{secrets.token_hex(4)}/"

    def _connect(self) -> tuple[socket.socket, Callable[[str], bytes]]:
        endpoint = connect(self._address)
        return endpoint, lambda body: exchange(endpoint, post(body))[2]

    def follower(self, client: LoadClient, user: int) -> FayeFollower:
        endpoint, ask = self._connect()
        name = handshake(ask, "long-polling")
        subscribe(ask, name, f"{self._prefix}{user}")
        return FayeFollower(client.adopt(endpoint), name)

    def sender(self, client: LoadClient, number: int) -> FayeSender:
        endpoint, ask = self._connect()
        name = handshake(ask, "long-polling")
        return FayeSender(client.adopt(endpoint), self._prefix, name)

    def reader(self, client: LoadClient, user: int, page: int) -> None:
        return None

    def counts(self, users: Iterable[int]) -> None:
        return None


class FayeFollower:
    """Repeats a request that is held until there are messages."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self._poll = post(connect_message(name, "long-polling"))

    def join(self) -> None:
        return None

    def poll(self) -> bytes:
        return self._poll

    def receive(self, status: int, head: bytes, body: bytes) -> list[Received]:
        if status != 200:
            raise UnexpectedResponse(f"{status} {body!r}")
        return received(body)


class FayeSender:
    """Publishes messages by requests."""

    def __init__(self, connection: Connection, prefix: str, name: str) -> None:
        self.connection = connection
        self._prefix = prefix
        self._name = name

    def send(self, recipient: int, text: str) -> bytes:
        return post(publication(self._prefix, recipient, self._name, text))

    def acknowledge(self, status: int, head: bytes, body: bytes) -> None:
        acknowledge(status, body)


class FayeStreams:
    """`StreamProtocol`: WebSocket, for senders too."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._prefix = f"/{secrets.token_hex(4)}/"

    def _connect(self) -> tuple[socket.socket, Callable[[str], bytes]]:
        endpoint = open_websocket(self._address, PATH)
        return endpoint, lambda text: exchange_text(endpoint, text)

    def stream(self, user: int) -> FayeStream:
        endpoint, ask = self._connect()
        name = handshake(ask, "websocket")
        # The server responds to this at its timeout, but sends over this WebSocket from now on.
        endpoint.sendall(frame(connect_message(name, "websocket")))
        subscribe(ask, name, f"{self._prefix}{user}")
        return FayeStream(endpoint)

    def sender(self, client: LoadClient, number: int) -> FayeStreamSender:
        endpoint, ask = self._connect()
        name = handshake(ask, "websocket")
        return FayeStreamSender(client.adopt(endpoint, split_frame), self._prefix, name)


class FayeStream:
    """Receives each message in a frame."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.socket = endpoint
        self._texts = FrameReader().texts

    def receive(self, data: bytes) -> list[Received]:
        return [each for text in self._texts(data) for each in received(text)]


class FayeStreamSender:
    """Publishes messages in frames."""

    def __init__(self, connection: Connection, prefix: str, name: str) -> None:
        self.connection = connection
        self._prefix = prefix
        self._name = name

    def send(self, recipient: int, text: str) -> bytes:
        return frame(publication(self._prefix, recipient, self._name, text))

    def acknowledge(self, status: int, head: bytes, body: bytes) -> None:
        acknowledge(status, body)
