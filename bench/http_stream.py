"""`HTTPStream`: a response without end, in pieces that end with a delimiter."""

from __future__ import annotations

from bench.load_client import Address, connect, receive
from bench.protocols import UnexpectedResponse


class HTTPStream:
    """An open response: lines if the delimiter is a newline, events if it is an empty line.

    It blocks until the first piece has arrived, which servers send at once, and raises
    `UnexpectedResponse` if the response is none that can be streamed.
    """

    def __init__(self, address: Address, request: bytes, delimiter: bytes) -> None:
        self.socket = connect(address)
        try:
            self._open(request, delimiter)
        except BaseException:
            self.socket.close()
            raise

    def _open(self, request: bytes, delimiter: bytes) -> None:
        self.socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += receive(self.socket)
        head, _, data = data.partition(b"\r\n\r\n")
        head = head.lower() + b"\r\n"
        if int(head[9:12]) != 200 or b"\r\ncontent-length:" in head:
            raise UnexpectedResponse(f"{head + data!r}")
        self._decode = (
            ChunkedDecoder().decode if b"\r\ntransfer-encoding: chunked" in head else None
        )
        self._delimiter = delimiter
        self._rest = b""
        self.first = self.pieces(data)
        """The pieces that arrived while the stream was opened: at least one."""
        while not self.first:
            self.first = self.pieces(receive(self.socket))

    def pieces(self, data: bytes) -> list[bytes]:
        """The pieces that are complete with these bytes, without their delimiters."""
        if self._decode is not None:
            data = self._decode(data)
        if self._rest:
            data = self._rest + data
        *complete, self._rest = data.split(self._delimiter)
        return complete


class ChunkedDecoder:
    """Decodes chunked encoding; chunks may arrive in parts."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def decode(self, data: bytes) -> bytes:
        """The content of the chunks that are complete with these bytes.

        Raises `UnexpectedResponse` at the last chunk: a measured stream does not end.
        """
        if self._rest:
            data = self._rest + data
        content: list[bytes] = []
        position = 0
        while (end := data.find(b"\r\n", position)) >= 0:
            size = int(data[position:end], 16)
            following = end + 2 + size + 2
            if len(data) < following:
                break
            if not size:
                raise UnexpectedResponse(f"the server ended a stream: {data!r}")
            content.append(data[end + 2 : following - 2])
            position = following
        self._rest = data[position:]
        return content[0] if len(content) == 1 else b"".join(content)
