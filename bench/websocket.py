"""WebSocket (RFC 6455) as far as a load generator needs it: whole, short text frames."""

from __future__ import annotations

import socket

from bench.load_client import Address, connect, exchange, receive
from bench.protocols import UnexpectedResponse

_WHOLE_TEXT = 0x81


def open_websocket(address: Address, path: str) -> socket.socket:
    """Open a connection without extensions."""
    endpoint = connect(address)
    endpoint.sendall(
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: YmVuY2ggYmVuY2ggYmVuYw==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(
            "ascii"
        )
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += receive(endpoint)
    if not head.startswith(b"HTTP/1.1 101 "):
        raise UnexpectedResponse(f"{head!r}")
    return endpoint


def frame(text: str) -> bytes:
    """A frame of a client, with a mask of zeros, which leaves the ASCII text as it is."""
    content = text.encode("ascii")
    if len(content) < 126:
        length = bytes((0x80 | len(content),))
    else:
        length = b"\xfe" + len(content).to_bytes(2, "big")
    return b"\x81%b\0\0\0\0%b" % (length, content)


def split_frame(data: bytes) -> tuple[int, bytes, bytes, int] | None:
    """The first frame of a server, in the form of `load_client.split_response`."""
    if len(data) < 4:
        return None
    if data[0] != _WHOLE_TEXT or data[1] > 126:
        raise UnexpectedResponse(f"{data!r} from a WebSocket")
    start, length = (2, data[1]) if data[1] < 126 else (4, int.from_bytes(data[2:4], "big"))
    end = start + length
    return None if len(data) < end else (200, b"", data[start:end], end)


def exchange_text(endpoint: socket.socket, text: str) -> bytes:
    """Send a text and block until the next one is received: for use before a measurement."""
    return exchange(endpoint, frame(text), split_frame)[2]


class FrameReader:
    """Splits what is received into the texts of frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def texts(self, data: bytes) -> list[bytes]:
        """The texts of the frames that are complete with these bytes."""
        if self._rest:
            data = self._rest + data
        found = []
        while (split := split_frame(data)) is not None:
            found.append(split[2])
            data = data[split[3] :]
        self._rest = data
        return found
