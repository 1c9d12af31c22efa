"""XMPP over BOSH (XEP-0124, XEP-0206), as Prosody speaks it: sessions, stanzas, held requests."""

from __future__ import annotations

import random
import re
import secrets
from base64 import b64encode
from collections.abc import Iterable

from bench.delivery_check import Received
from bench.load_client import Address, Connection, Loop, connect, exchange
from bench.protocols import Unexpected

DOMAIN = "localhost"
PASSWORD = "pw"

_BODY = re.compile(rb"<body>([^<]*)</body>")
_SID = re.compile(rb"""sid=['"]([^'"]+)""")
_TERMINATED = re.compile(rb"""type=['"]terminate""")
_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_BIND = "urn:ietf:params:xml:ns:xmpp-bind"


class Session:
    """A client that has logged in."""

    def __init__(self, address: Address, user: str, available: bool) -> None:
        self.rid = random.randrange(1 << 30)
        self.sid = ""
        self.socket = connect(address)
        opening = " wait='55' hold='1' ver='1.6' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'"
        answer = self._until(self.wrap("", opening + f" to='{DOMAIN}'"), b"sid=")
        found = _SID.search(answer)
        assert found is not None
        self.sid = found[1].decode("ascii")
        if b"mechanism" not in answer:
            self._until(self.wrap(""), b"mechanism")
        proof = b64encode(f"\0{user}\0{PASSWORD}".encode("ascii")).decode("ascii")
        self._until(self.wrap(f"<auth xmlns='{_SASL}' mechanism='PLAIN'>{proof}</auth>"), b"<succ")
        restart = f" to='{DOMAIN}' xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'"
        self._until(self.wrap("", restart), b"features")
        resource = f"<bind xmlns='{_BIND}'><resource>{secrets.token_hex(4)}</resource></bind>"
        bind = f"<iq type='set' id='bind' xmlns='jabber:client'>{resource}</iq>"
        self._until(self.wrap(bind), b"<jid>")
        if available:
            ping = self.wrap("<presence xmlns='jabber:client'/>" + self.ping("available"))
            self._until(ping, b"available")

    def wrap(self, stanzas: str, attributes: str = "") -> bytes:
        """A request with the next number."""
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
        """A question (XEP-0199) that the server answers after what was sent before it."""
        return (
            f"<iq type='get' id='{name}' to='{DOMAIN}' xmlns='jabber:client'>"
            "<ping xmlns='urn:xmpp:ping'/></iq>"
        )

    def _until(self, request: bytes, wanted: bytes) -> bytes:
        # What answers a request may come with a later one.
        for _ in range(5):
            status, _, body = exchange(self.socket, request)
            check(status, body)
            if wanted in body:
                return body
            request = self.wrap("")
        raise Unexpected(f"{wanted!r} did not come, but {body!r}")


def check(status: int, body: bytes) -> None:
    """Raise `Unexpected` if the session has ended."""
    if status != 200 or _TERMINATED.search(body):
        raise Unexpected(f"{status} {body!r}")


class Bosh:
    """`bench.protocols.Dialect` of `peers/prosody.cfg.lua`; accounts are u0 ... and s0 ..."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def follower(self, loop: Loop, user: int) -> BoshFollower:
        session = Session(self._address, f"u{user}", available=True)
        return BoshFollower(loop.adopt(session.socket), session)

    def sender(self, loop: Loop, number: int) -> BoshSender:
        session = Session(self._address, f"s{number}", available=False)
        return BoshSender(loop.adopt(session.socket), session)

    def reader(self, loop: Loop, user: int, page: int) -> None:
        return None

    def counts(self, users: Iterable[int]) -> None:
        return None


class BoshFollower:
    """Waits with an empty request."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self.connection = connection
        self._session = session

    def join(self) -> None:
        return None

    def poll(self) -> bytes:
        return self._session.wrap("")

    def receive(self, status: int, head: bytes, body: bytes) -> list[Received]:
        check(status, body)
        return [Received(text.decode("ascii"), None) for text in _BODY.findall(body)]


class BoshSender:
    """Sends a message and a ping behind it: the pong says that the server has dealt with both."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self.connection = connection
        self._session = session
        self._pong = b""

    def send(self, recipient: int, text: str) -> bytes:
        name = f"p{self._session.rid}"
        self._pong = name.encode("ascii")
        return self._session.wrap(
            f"<message to='u{recipient}@{DOMAIN}' type='chat' id='m{name}' xmlns='jabber:client'>"
            f"<body>{text}</body></message>{self._session.ping(name)}"
        )

    def acknowledge(self, status: int, head: bytes, body: bytes) -> bytes | None:
        check(status, body)
        if b"<error" in body:
            raise Unexpected(f"{body!r}")
        return None if self._pong in body else self._session.wrap("")
