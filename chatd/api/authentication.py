"""Authentication by the `Authorization` header: a bearer token, or username and password."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Awaitable

from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.domain.accounts import Accounts
from chatd.errors import Unauthorized
from chatd.model import Session


class Authenticator:
    """Finds the session of a request, and has it counted by the address from `proxies`."""

    def __init__(self, accounts: Accounts, proxies: TrustedProxies) -> None:
        self._accounts = accounts
        self._proxies = proxies

    def __call__(self, context: RequestContext) -> Awaitable[Session]:
        """The caller's session; raises `Unauthorized` or `RateLimited`."""
        scheme, proof = credentials(context.header(b"authorization"))
        address = self._proxies.address(context.request)
        if scheme == b"bearer" and proof:
            return self._accounts.bearer(proof, address)
        if scheme == b"basic":
            username, password = parse_basic(proof)
            return self._accounts.basic(username, password, address)
        raise Unauthorized("send Authorization: Bearer with a token, or Basic")


def credentials(authorization: bytes | None) -> tuple[bytes, bytes]:
    """The scheme in lower case and the rest of an `Authorization` header."""
    scheme, _, proof = (authorization or b"").partition(b" ")
    return scheme.lower(), proof.strip()


def parse_basic(proof: bytes) -> tuple[str, str]:
    """Username and password (RFC 7617, in UTF-8); raises `Unauthorized`."""
    try:
        username, colon, password = b64decode(proof, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthorized("the Basic credentials cannot be read") from None
    if not colon:
        raise Unauthorized("the Basic credentials have no colon")
    return username, password
