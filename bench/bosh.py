"""XMPP over BOSH (XEP-0124, XEP-0206), as implemented by Prosody."""

from __future__ import annotations

import random
import re
import secrets
from base64 import b64encode
from collections.abc import Iterable

from bench.delivery_check import Received
from bench.load_client import Address, Connection, LoadClient, connect, exchange
from bench.protocols import UnexpectedResponse

DOMAIN = "localhost"
PASSWORD = "pw"

_BODY = re.compile(rb"<body>([^<]*)</body>")
_SID = re.compile(rb"""sid=['"]([^'"]+)""")
_TERMINATED = re.compile(rb"""type=['"]terminate""")
_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_BIND = "urn:ietf:params:xml:ns:xmpp-bind"


class Session:
    """A logged-in BOSH session."""

    def __init__(self, address: Address, user: str, available: bool) -> None:
        self.rid = random.randrange(1 << 30)
        self.sid = ""
        self.socket = connect(address)
        opening = " wait='55' hold='1' ver='1.6' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'"
        response = self._until(self.new_request("", opening + f" to='{DOMAIN}'"), b"sid=")
        found = _SID.search(response)
        assert found is not None
        self.sid = found[1].decode("ascii")
        if b"mechanism" not in response:
            self._until(self.new_request(""), b"mechanism")
        proof = b64encode(f"\0{user}\0{PASSWORD}".encode("ascii")).decode("ascii")
        self._until(
            self.new_request(f"<auth xmlns='{_SASL}' mechanism='PLAIN'>{proof}</auth>"), b"<succ"
        )
        restart = f" to='{DOMAIN}' xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'"
        self._until(self.new_request("", restart), b"features")
        resource = f"<bind xmlns='{_BIND}'><resource>{secrets.token_hex(4)}</resource></bind>"
        bind = f"<iq type='set' id='bind' xmlns='jabber:client'>{resource}</iq>"
        self._until(self.new_request(bind), b"<jid>")
        if available:
            ping = self.new_request("<presence xmlns='jabber:client'/>" + self.ping("available"))
            self._until(ping, b"available")

    def new_request(self, stanzas: str, attributes: str = "") -> bytes:
        """An HTTP request with the next request id."""
        self.rid += 1
        sid = f" sid='{self.sid}'" if self.sid else ""
        body = (
            f"<body rid='{self.rid}'{sid} xmlns='http://jabber.org/protocol/httpbind'{attributes}>"
            f"{stanzas}</body>"
        )
        return (
            "POST /http-bind HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: text/xml; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode("ascii")

    def ping(self, name: str) -> str:
        """A ping (XEP-0199), which the server answers after the stanzas before it."""
        return (
            f"<iq type='get' id='{name}' to='{DOMAIN}' xmlns='jabber:client'>"
            "<ping xmlns='urn:xmpp:ping'/></iq>"
        )

    def _until(self, request: bytes, wanted: bytes) -> bytes:
        # The server may send the response to a later request.
        for _ in range(5):
            status, _, body = exchange(self.socket, request)
            check(status, body)
            if wanted in body:
                return body
            request = self.new_request("")
        raise UnexpectedResponse(f"expected {wanted!r}, got {body!r}")


def check(status: int, body: bytes) -> None:
    """Raise `UnexpectedResponse` if the session has ended."""
    if status != 200 or _TERMINATED.search(body):
        raise UnexpectedResponse(f"{status} {body!r}")


class Bosh:
    """`ChatProtocol` of `peers/prosody.cfg.lua`; accounts are u0 ... and s0 ..."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def follower(self, client: LoadClient, user: int) -> BoshFollower:
        session = Session(self._address, f"u{user}", available=True)
        return BoshFollower(client.adopt(session.socket), session)

    def sender(self, client: LoadClient, number: int) -> BoshSender:
        session = Session(self._address, f"s{number}", available=False)
        return BoshSender(client.adopt(session.socket), session)

    def reader(self, client: LoadClient, user: int, page: int) -> None:
        return None

    def counts(self, users: Iterable[int]) -> None:
        return None


class BoshFollower:
    """Polls with an empty request."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self.connection = connection
        self._session = session

    def join(self) -> None:
        return None

    def poll(self) -> bytes:
        return self._session.new_request("")

    def receive(self, status: int, head: bytes, body: bytes) -> list[Received]:
        check(status, body)
        return [Received(text.decode("ascii"), None) for text in _BODY.findall(body)]


class BoshSender:
    """Sends a message and a ping; the pong means that the server has processed both."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self.connection = connection
        self._session = session
        self._pong = b""

    def send(self, recipient: int, text: str) -> bytes:
        name = f"p{self._session.rid}"
        self._pong = name.encode("ascii")
        return self._session.new_request(
            f"<message to='u{recipient}@{DOMAIN}' type='chat' id='m{name}' xmlns='jabber:client'>"
            f"<body>{text}</body></message>{self._session.ping(name)}"
        )

    def acknowledge(self, status: int, head: bytes, body: bytes) -> bytes | None:
        check(status, body)
        if b"<error" in body:
            raise UnexpectedResponse(f"{body!r}")
        return None if self._pong in body else self._session.new_request("")
