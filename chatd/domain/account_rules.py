"""What usernames, email addresses, passwords and labels of tokens may be (contract, Users)."""

from __future__ import annotations

import re
from typing import Final

from chatd.errors import InvalidBody

MAX_PASSWORD: Final = 1024
MAX_EMAIL: Final = 254

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
# In the header of a mail they would begin another one.
_CONTROLS: Final = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
_USERNAME: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


def is_username(text: str) -> bool:
    """Whether an account may have this name."""
    return _USERNAME.fullmatch(text) is not None


def check_username(username: str) -> None:
    """Raise `InvalidBody` for a name that no account may have."""
    if not is_username(username):
        raise InvalidBody("username: 1 to 32 of ASCII letters, digits, dot, underscore and hyphen")


def check_email(email: str) -> None:
    """Raise `InvalidBody` for what is no email address."""
    local, at, domain = email.partition("@")
    if not (local and at and domain) or "@" in domain or len(email) > MAX_EMAIL:
        raise InvalidBody(f"email: up to {MAX_EMAIL} characters with one @ inside")
    if _CONTROLS.search(email):
        raise InvalidBody("email: no control characters")
    check_storable("email", email)


def check_password(password: str, min_length: int) -> None:
    """Raise `InvalidBody` for a new password that is too short or too long."""
    if not min_length <= len(password) <= MAX_PASSWORD:
        raise InvalidBody(f"password: {min_length} to {MAX_PASSWORD} characters")


def check_storable(member: str, text: str) -> None:
    """Raise `InvalidBody` for text of this member that JSON can carry and the store cannot."""
    if _UNSTORABLE.search(text):
        raise InvalidBody(f"{member}: U+0000 and lone surrogates cannot be stored")
