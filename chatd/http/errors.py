"""Errors in what a client sends, which end its connection."""

from __future__ import annotations

from chatd.http.limits import HTTPLimits


class HTTPError(Exception):
    """The client is sent an error response with `status`, and its connection is closed."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail


def bad_request(detail: str) -> HTTPError:
    """400 (RFC 9110 section 15.5.1)."""
    return HTTPError(400, "bad_request", detail)


def repeated_header(name: bytes) -> HTTPError:
    """400, for two of a header of which only one can be meant."""
    return HTTPError(
        400, "invalid_header", f"{name.decode('ascii').title()}: given more than once."
    )


def misdirected_request() -> HTTPError:
    """421 (RFC 9110 section 15.5.20)."""
    return HTTPError(421, "misdirected_request", "The server has no such name as Host says.")


def request_timeout(detail: str) -> HTTPError:
    """408 (RFC 9110 section 15.5.9)."""
    return HTTPError(408, "request_timeout", detail)


def body_too_large(limits: HTTPLimits) -> HTTPError:
    """413 (RFC 9110 section 15.5.14)."""
    return HTTPError(413, "body_too_large", f"The body has more than {limits.body_bytes} bytes.")


def uri_too_long(limits: HTTPLimits) -> HTTPError:
    """414 (RFC 9110 section 15.5.15)."""
    return HTTPError(
        414, "uri_too_long", f"The request target has more than {limits.uri_bytes} bytes."
    )


def head_too_large(limits: HTTPLimits) -> HTTPError:
    """431 (RFC 6585 section 5), for the size in bytes."""
    return HTTPError(
        431, "head_too_large", f"Request line and headers have more than {limits.head_bytes} bytes."
    )


def too_many_headers(limits: HTTPLimits) -> HTTPError:
    """431 (RFC 6585 section 5), for the number of header lines."""
    return HTTPError(431, "head_too_large", f"More than {limits.headers} header lines.")


def bad_transfer_coding() -> HTTPError:
    """501 (RFC 9112 section 6.1)."""
    return HTTPError(501, "not_implemented", "The only transfer coding is chunked.")


def server_full() -> HTTPError:
    """503 (RFC 9110 section 15.6.4)."""
    return HTTPError(503, "overloaded", "The server has no room for more connections.")


def address_full() -> HTTPError:
    """503, for connections from one address."""
    return HTTPError(503, "overloaded", "There are too many connections from this address.")


def unsent_full() -> HTTPError:
    """503, for responses that are not read."""
    return HTTPError(503, "overloaded", "Too many responses wait for their clients to read them.")


def received_full() -> HTTPError:
    """503, for requests of which only a part has come, or a large head is to be kept."""
    return HTTPError(503, "overloaded", "Requests that are incomplete or wait take too much.")


def bad_version() -> HTTPError:
    """505 (RFC 9110 section 15.6.6)."""
    return HTTPError(505, "version_not_supported", "This server speaks HTTP/1.1 and HTTP/1.0.")
