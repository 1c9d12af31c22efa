"""A small server on Centrifugo's library, in its JSON protocol over WebSocket."""

from __future__ import annotations

import json
import secrets
import socket

import msgspec

from bench.delivery_check import Received
from bench.load_client import Address, Connection, LoadClient
from bench.protocols import UnexpectedResponse
from bench.websocket import FrameReader, exchange_text, frame, open_websocket, split_frame

PATH = "/websocket"
_SUBSCRIBE = 1
_PUBLISH = 3


class Text(msgspec.Struct):
    """The content of a message."""

    m: str


class Publication(msgspec.Struct):
    """What is published to a channel."""

    data: Text


class Push(msgspec.Struct):
    """A publication and its channel."""

    channel: str
    data: Publication


class Line(msgspec.Struct):
    """What the server sends without being asked; a frame may contain several, one per line."""

    result: Push


_decode = msgspec.json.Decoder(Line).decode


def log_in(address: Address) -> socket.socket:
    """A connection that the server has accepted."""
    endpoint = open_websocket(address, PATH)
    _call(endpoint, {"params": {}})
    return endpoint


def _call(endpoint: socket.socket, command: dict[str, object]) -> None:
    response = exchange_text(endpoint, json.dumps({"id": 1, **command}))
    if "result" not in json.loads(response):
        raise UnexpectedResponse(f"{response!r}")


class Centrifuge:
    """`StreamProtocol` of `peers/centrifuge`."""

    def __init__(self, address: Address) -> None:
        self._address = address
        # New for each run, so that subscriptions of an earlier one have no part in it.
        self._prefix = secrets.token_hex(4)

    def stream(self, user: int) -> CentrifugeStream:
        endpoint = log_in(self._address)
        _call(endpoint, {"method": _SUBSCRIBE, "params": {"channel": f"{self._prefix}{user}"}})
        return CentrifugeStream(endpoint)

    def sender(self, client: LoadClient, number: int) -> CentrifugeSender:
        return CentrifugeSender(client.adopt(log_in(self._address), split_frame), self._prefix)


class CentrifugeStream:
    """Receives messages in frames."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.socket = endpoint
        self._texts = FrameReader().texts

    def receive(self, data: bytes) -> list[Received]:
        return [
            Received(_decode(line).result.data.data.m, None)
            for text in self._texts(data)
            for line in text.splitlines()
        ]


class CentrifugeSender:
    """Publishes messages in frames."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self.connection = connection
        self._prefix = prefix

    def send(self, recipient: int, text: str) -> bytes:
        channel = f"{self._prefix}{recipient}"
        return frame(
            f'{{"id":1,"method":{_PUBLISH},"params":{{"channel":"{channel}","data":{{"m":"{text}"}}}}}}'
        )

    def acknowledge(self, status: int, head: bytes, body: bytes) -> None:
        if b'"result"' not in body:
            raise UnexpectedResponse(f"{body!r}")
