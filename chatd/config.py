"""The daemon's settings: command line over environment over TOML file over defaults.

Every option of the command line is also a key of the file and, in upper case behind `CHATD_`, an
environment variable (contract, Command line).
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

PREFIX: Final = "CHATD_"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(Exception):
    """A setting that cannot be; the text names the culprit in one line."""


@attrs.frozen
class Settings:
    """What the daemon is told; durations are seconds, sizes bytes."""

    listen: tuple[str, ...]
    admin: str | None
    db: str
    listen_db: str | None
    registration: bool
    rate_limits: bool
    max_message_bytes: int
    min_password_length: int
    max_polls: int
    drain_seconds: float
    workers: int
    trusted_proxies: tuple[Network, ...]
    access_log: bool


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a text")
    if "\0" in value:
        raise ValueError("holds U+0000")
    return value.strip()


def _texts(value: Any) -> tuple[str, ...]:
    # One variable of the environment holds several endpoints, separated by spaces.
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values:
        raise ValueError("is neither an endpoint nor a list of them")
    return tuple(_text(each) for each in values)


def _whole(least: int, most: int = 2**31) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = value
        if isinstance(value, str) and value.isascii() and value.isdigit():
            number = int(value)
        if type(number) is not int or not least <= number <= most:
            raise ValueError(f"is not a whole number from {least} to {most}")
        return number

    return parse


def _seconds(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not 0 <= number <= 3600:
        raise ValueError("is not a number of seconds from 0 to 3600")
    return number


def _choice(yes: str, no: str) -> Callable[[Any], bool]:
    def parse(value: Any) -> bool:
        if value in (yes, no):
            return bool(value == yes)
        raise ValueError(f"is neither {yes} nor {no}")

    return parse


def _networks(value: Any) -> tuple[Network, ...]:
    texts = value.replace(",", " ").split() if isinstance(value, str) else value
    # Not left to ip_network: it takes the number 1 for 0.0.0.1.
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError("is not a list of networks")
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as wrong:
        raise ValueError(f"is not a list of networks: {wrong}") from None


@attrs.frozen
class Option:
    """One option: how its value is read, its default as a text, its line of help."""

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str
    secret: bool = False
    """The value may hold a password, so no message repeats it."""

    @property
    def variable(self) -> str:
        """The environment variable of the same meaning."""
        return PREFIX + self.name.replace("-", "_").upper()

    @property
    def field(self) -> str:
        """The member of `Settings`."""
        return self.name.replace("-", "_")


OPTIONS: Final = (
    Option(
        "listen",
        _texts,
        ("tcp:8080:interface=127.0.0.1",),
        "Endpoint of the public API, as twistd endpoints are written; may be repeated.",
    ),
    Option("admin", _text, None, "Endpoint of /metrics, /healthz and /readyz for operators."),
    Option("db", _text, "sqlite:chatd.db", "sqlite:PATH, or postgresql://...", secret=True),
    Option(
        "listen-db",
        _text,
        None,
        "PostgreSQL for LISTEN, where --db goes through a transaction pooler.",
        secret=True,
    ),
    Option("registration", _choice("open", "closed"), "open", "Who may register: open|closed."),
    Option("rate-limits", _choice("on", "off"), "on", "Rate limits: on|off."),
    Option("max-message-bytes", _whole(1, 1 << 24), 16384, "Largest message, bytes of UTF-8."),
    Option("min-password-length", _whole(1, 1024), 5, "Shortest password, characters."),
    Option("max-polls", _whole(0), 10000, "Polls held at once by a process."),
    Option("drain-seconds", _seconds, 10, "How long a stopping server finishes what it does."),
    Option("workers", _whole(1, 1024), 1, "Processes that share the port; needs PostgreSQL."),
    Option(
        "trusted-proxies",
        _networks,
        "",
        "Networks whose X-Forwarded-For is believed, separated by commas.",
    ),
    Option("access-log", _choice("on", "off"), "off", "One line of log a request: on|off."),
)


def load(
    command_line: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Settings, list[str]]:
    """The settings and warnings about variables nobody reads; raises `ConfigError`.

    `command_line` holds what was given there, by option name, and may name the file: `config`.
    """
    path = command_line.get("config", environment.get(PREFIX + "CONFIG"))
    file = {} if path is None else _read(path)
    known = {option.name: option for option in OPTIONS}
    for key in file:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}")
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if option.name in command_line:
            where, value = f"--{option.name}", command_line[option.name]
        elif option.variable in environment:
            where, value = option.variable, environment[option.variable]
        elif option.name in file:
            where, value = f"{path}: {option.name}", file[option.name]
        elif option.default is None:
            values[option.field] = None
            continue
        else:
            where, value = option.name, option.default
        try:
            values[option.field] = option.parse(value)
        except ValueError as wrong:
            shown = "the value" if option.secret else repr(value)
            raise ConfigError(f"{where}: {shown} {wrong}") from None
    variables = {option.variable for option in OPTIONS} | {PREFIX + "CONFIG"}
    warnings = [
        f"the environment variable {name} means nothing to chatd"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in variables
    ]
    return Settings(**values), warnings


def variables(settings: Settings) -> dict[str, str]:
    """The environment that gives these settings."""
    texts = {}
    for option in OPTIONS:
        value = getattr(settings, option.field)
        if isinstance(value, bool):
            texts[option.variable] = next(
                word for word in ("on", "off", "open", "closed") if _means(option, word, value)
            )
        elif isinstance(value, tuple):
            texts[option.variable] = " ".join(map(str, value))
        elif value is not None:
            texts[option.variable] = str(value)
    return texts


def _means(option: Option, word: str, value: bool) -> bool:
    try:
        return bool(option.parse(word) == value)
    except ValueError:
        return False


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as problem:
        raise ConfigError(f"{path or 'config'}: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:  # also numbers of too many digits
        raise ConfigError(f"{path}: not TOML: {problem}") from None
