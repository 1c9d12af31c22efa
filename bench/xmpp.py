"""XMPP over TCP (RFC 6120), as implemented by Prosody."""

from __future__ import annotations

import re
import secrets
import socket
from base64 import b64encode

from bench.bosh import DOMAIN, PASSWORD
from bench.delivery_check import Received
from bench.load_client import Address, Connection, LoadClient, connect, receive
from bench.protocols import UnexpectedResponse

_BODY = re.compile(rb"<body>([^<]*)</body>")
_END = b"</message>"
_STANZA = re.compile(rb"<iq [^>]*/>|<(iq|message|presence) .*?</\1>", re.DOTALL)
_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_BIND = "urn:ietf:params:xml:ns:xmpp-bind"
_OPENING = (
    f"<stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>"
)


def log_in(address: Address, user: str, available: bool) -> socket.socket:
    """A logged-in connection; messages to the user arrive if `available`."""
    endpoint = connect(address)

    def until(text: str, wanted: bytes) -> None:
        endpoint.sendall(text.encode("ascii"))
        data = b""
        while wanted not in data:
            if b"<stream:error" in data or b"<failure" in data:
                raise UnexpectedResponse(f"expected {wanted!r}, got {data!r}")
            data += receive(endpoint)

    until(_OPENING, b"</stream:features>")
    proof = b64encode(f"\0{user}\0{PASSWORD}".encode("ascii")).decode("ascii")
    until(f"<auth xmlns='{_SASL}' mechanism='PLAIN'>{proof}</auth>", b"<success")
    until(_OPENING, b"</stream:features>")
    resource = f"<bind xmlns='{_BIND}'><resource>{secrets.token_hex(4)}</resource></bind>"
    until(f"<iq type='set' id='bind'>{resource}</iq>", b"</iq>")
    if available:
        until("<presence/>" + ping("available"), b"available")
    return endpoint


def ping(name: str) -> str:
    """A ping (XEP-0199), which the server answers after the stanzas before it."""
    return f"<iq type='get' id='{name}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>"


def split_stanza(data: bytes) -> tuple[int, bytes, bytes, int] | None:
    """The first stanza, in the form of `load_client.split_response`."""
    found = _STANZA.match(data)
    return None if found is None else (200, b"", found[0], found.end())


class Xmpp:
    """`StreamProtocol` of `peers/prosody.cfg.lua`; accounts are u0 ... and s0 ..."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def stream(self, user: int) -> XmppStream:
        return XmppStream(log_in(self._address, f"u{user}", available=True))

    def sender(self, client: LoadClient, number: int) -> XmppSender:
        endpoint = log_in(self._address, f"s{number}", available=False)
        return XmppSender(client.adopt(endpoint, split_stanza))


class XmppStream:
    """Receives message stanzas."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.socket = endpoint
        self._rest = b""

    def receive(self, data: bytes) -> list[Received]:
        data = self._rest + data
        end = data.rfind(_END) + len(_END)
        if end < len(_END):
            self._rest = data
            return []
        self._rest = data[end:]
        return [Received(text.decode("ascii"), None) for text in _BODY.findall(data, 0, end)]


class XmppSender:
    """Sends a message and a ping; the pong means that the server has processed both."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sent = 0

    def send(self, recipient: int, text: str) -> bytes:
        self._sent += 1
        name = f"p{self._sent}"
        message = (
            f"<message to='u{recipient}@{DOMAIN}' type='chat' id='m{name}'>"
            f"<body>{text}</body></message>"
        )
        return (message + ping(name)).encode("ascii")

    def acknowledge(self, status: int, head: bytes, body: bytes) -> None:
        if f"p{self._sent}".encode("ascii") not in body or b"error" in body:
            raise UnexpectedResponse(f"{body!r}")
