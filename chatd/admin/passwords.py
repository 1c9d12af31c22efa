"""Passwords for accounts: asked for, read or made up, and hashed."""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys

from chatd.admin.errors import AdminError
from chatd.domain.account_rules import check_password
from chatd.domain.passwords import encode, owasp_hasher
from chatd.errors import InvalidBody


def read_password(args: argparse.Namespace, min_length: int) -> str:
    """The password that the command line tells where to find; raises `AdminError`."""
    if args.generate_password:
        return secrets.token_urlsafe(18)
    password = _read_file(args.password_file) if args.password_file else _ask()
    try:
        check_password(password, min_length)
    except InvalidBody as error:
        raise AdminError(error.detail) from None
    return password


def hash_password(password: str) -> str:
    """What is stored of a password."""
    return owasp_hasher().hash(encode(password))


def _read_file(path: str) -> str:
    try:
        if path == "-":
            line = sys.stdin.readline()
        else:
            with open(path, encoding="utf-8") as file:
                line = file.readline()
    except OSError as error:
        raise AdminError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AdminError(f"cannot read {path}: not UTF-8") from None
    return line.rstrip("\r\n")


def _ask() -> str:
    if not sys.stdin.isatty():
        raise AdminError(
            "no terminal to ask for the password: use --password-file or --generate-password"
        )
    password = getpass.getpass("Password: ")
    if getpass.getpass("Repeat password: ") != password:
        raise AdminError("the passwords differ")
    return password
