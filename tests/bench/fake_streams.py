"""A server of streams that misbehaves on request."""

from __future__ import annotations

import json
import socket

from bench.chat_api import ChatSender
from bench.delivery_check import Received
from bench.load_client import LoadClient
from bench.protocols import UnexpectedResponse

FAULTY = 5
"""The seq, in each inbox, of the message that is handled wrongly."""


class FakeStream:
    """Receives messages as lines `SEQ TEXT`."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.socket = endpoint
        self._rest = b""

    def receive(self, data: bytes) -> list[Received]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            seq, _, text = line.decode().partition(" ")
            if not text:
                raise UnexpectedResponse(f"{line!r} in a stream")
            found.append(Received(text, int(seq)))
        return found


class FakeStreams:
    """A `StreamProtocol` whose server runs in the loop of the client that sends.

    `fault` is one of "lose", "double", "swap", "misroute", "reject", "end", or None.
    """

    def __init__(self, fault: str | None = None) -> None:
        self.fault = fault
        self.sent = 0
        self._streams: list[socket.socket] = []
        self._seqs: dict[int, int] = {}
        self._delayed: dict[int, bytes] = {}

    def stream(self, user: int) -> FakeStream:
        near, far = socket.socketpair()
        assert user == len(self._streams)
        self._streams.append(far)
        return FakeStream(near)

    def sender(self, client: LoadClient, number: int) -> ChatSender:
        near, far = socket.socketpair()

        def serve(request: bytes) -> None:
            body = json.loads(request.partition(b"\r\n\r\n")[2])
            status = self._send(body["user_id"], body["message"])
            far.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

        client.subscribe(far, serve)
        return ChatSender(client.adopt(near), "token", list(range(100)))

    def close(self) -> None:
        """Close the streams."""
        for each in self._streams:
            each.close()

    def _send(self, recipient: int, text: str) -> bytes:
        self.sent += 1
        seq = self._seqs[recipient] = self._seqs.get(recipient, 0) + 1
        line = f"{seq} {text}\n".encode()
        fault = self.fault if seq == FAULTY else None
        if fault == "swap":
            self._delayed[recipient] = line
        elif fault == "misroute":
            self._streams[recipient - 1].send(line)
        elif self.fault == "end" and seq >= FAULTY:
            self._streams[recipient].shutdown(socket.SHUT_RDWR)
        elif fault != "lose":
            copies = 2 if fault == "double" else 1
            self._streams[recipient].send(line * copies + self._delayed.pop(recipient, b""))
        return b"503 X" if fault == "reject" else b"201 Created"
