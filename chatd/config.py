"""Settings of the daemon, from the command line, the environment, a TOML file and defaults.

Every command-line option is also a key of the file and, in upper case with the prefix `CHATD_`, an
environment variable (contract, Command line). The sources take precedence in the order above.
"""

from __future__ import annotations

import codecs
import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from chatd.rates import Rate

PREFIX: Final = "CHATD_"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ORIGIN: Final = re.compile(
    r"(?P<origin>(?P<scheme>[a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+))(:(?P<port>[0-9]{1,5}))?"
)
_PASSWORD: Final = re.compile(r"(://[^:@/\s]*:)[^@\s]*@")
_PORTS: Final = {"http": 80, "https": 443}


class ConfigError(Exception):
    """An invalid setting; the text is one line that names the setting and where it was given."""


@attrs.frozen
class Settings:
    """Settings of the daemon; durations are in seconds, sizes in bytes."""

    listen: tuple[str, ...]
    admin: str | None
    db: str
    listen_db: str | None
    bus: str | None
    registration: bool
    rate_limits: bool
    rate_registrations: Rate
    rate_log_ins: Rate
    rate_wrong_passwords: Rate
    rate_guesses: Rate
    rate_reads: Rate
    rate_messages: Rate
    rate_message_bytes: Rate
    max_message_bytes: int
    min_password_length: int
    edit_seconds: int
    first_contact: bool
    max_inbox_messages: int
    max_inbox_bytes: int
    min_free_disk: int
    """0: the disk is not looked at."""
    max_polls: int
    max_connections_per_address: int
    """0: no limit."""
    drain_seconds: float
    lame_duck_seconds: float
    workers: int
    trusted_proxies: tuple[Network, ...]
    allowed_hosts: tuple[str, ...]
    """Names in Host that both listeners answer to; empty: any on the public one."""
    cors_origins: tuple[str, ...]
    access_log: bool
    log_format: str
    log_level: str
    directory: bool
    show_email: bool
    """Whether everybody sees an account's email address, and not only its owner."""
    retention_days: int
    """How long messages are kept; 0: always."""

    @property
    def proxy_protocol(self) -> bool:
        """Whether a proxy says by the PROXY protocol whose connections those of the API are."""
        return any(text.startswith("haproxy:") for text in self.listen)

    @property
    def keep_microseconds(self) -> int | None:
        """How long messages are kept; None: always."""
        return self.retention_days * 86_400_000_000 or None


# Parsers of values: they take what the command line, the environment (both text) or TOML (any type)
# gave, and raise a ValueError whose text continues a sentence that begins with the value.


def _parse_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a string")
    if "\0" in value:
        raise ValueError("contains U+0000")
    return value.strip()


def _parse_endpoints(value: Any) -> tuple[str, ...]:
    # An environment variable may hold several endpoints, separated by spaces.
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values:
        raise ValueError("is neither an endpoint nor a list of them")
    return tuple(_parse_text(each) for each in values)


def _integer(least: int, most: int = 2**31) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = value
        if isinstance(value, str) and value.isascii() and value.isdigit():
            number = int(value)
        if type(number) is not int or not least <= number <= most:
            raise ValueError(f"is not a whole number from {least} to {most}")
        return number

    return parse


def _parse_seconds(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not 0 <= number <= 3600:
        raise ValueError("is not a number of seconds from 0 to 3600")
    return number


def _parse_rate(value: Any) -> Rate:
    return Rate.parse(value if isinstance(value, str) else "")


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise ValueError(f"is none of {', '.join(words)}")

    return parse


def _choice(true: str, false: str) -> Callable[[Any], bool]:
    def parse(value: Any) -> bool:
        if value in (true, false):
            return bool(value == true)
        raise ValueError(f"is neither {true} nor {false}")

    return parse


def _parse_networks(value: Any) -> tuple[Network, ...]:
    texts = value.replace(",", " ").split() if isinstance(value, str) else value
    # ip_network alone would take the number 1 for 0.0.0.1.
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError("is not a list of networks")
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise ValueError(f"is not a list of networks: {error}") from None


_HOST: Final = re.compile(r"\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def _parse_hosts(value: Any) -> tuple[str, ...]:
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(
        isinstance(name, str) and _HOST.fullmatch(name) for name in names
    ):
        raise ValueError("is not a list of host names, without ports")
    return tuple(name.lower() for name in names)


def _parse_origins(value: Any) -> tuple[str, ...]:
    texts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError("is not a list of origins")
    if "*" in texts and len(texts) > 1:
        raise ValueError("is not a list of origins: * stands alone")
    return tuple(text if text == "*" else _origin(text) for text in texts)


def _origin(text: str) -> str:
    """An origin as browsers write it (RFC 6454 section 6.2): in lower case, without the port that
    the scheme implies.
    """
    match = _ORIGIN.fullmatch(text.lower())
    if match is None or (match["port"] is not None and int(match["port"]) > 65535):
        raise ValueError(
            f"is not a list of origins: {text!r} is not scheme://host or scheme://host:port"
        )
    if match["port"] is None:
        return match["origin"]
    port = int(match["port"])
    return match["origin"] if _PORTS.get(match["scheme"]) == port else f"{match['origin']}:{port}"


@attrs.frozen
class Option:
    """A setting: its name, the parser of its value, its unparsed default, and its help."""

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str
    secret: bool = False
    """The value may contain a password, so error messages do not repeat it."""
    reloadable: bool = False
    """SIGHUP changes it in a running daemon."""

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return PREFIX + self.name.replace("-", "_").upper()

    @property
    def field(self) -> str:
        """The name of its attribute of `Settings`."""
        return self.name.replace("-", "_")

    @property
    def default_text(self) -> str | None:
        """The default as one writes it on the command line; None if there is none."""
        if isinstance(self.default, tuple):
            return " ".join(self.default)
        return None if self.default is None or self.default == "" else str(self.default)


OPTIONS: Final = (
    Option(
        "listen",
        _parse_endpoints,
        ("tcp:8080:interface=127.0.0.1",),
        "Twisted server endpoint of the public API; may be repeated.",
    ),
    Option("admin", _parse_text, None, "Endpoint of /metrics, /healthz and /readyz for operators."),
    Option("db", _parse_text, "sqlite:chatd.db", "sqlite:PATH, or postgresql://...", secret=True),
    Option(
        "listen-db",
        _parse_text,
        None,
        "PostgreSQL for LISTEN, if --db is behind a transaction pooler.",
        secret=True,
    ),
    Option(
        "bus",
        _parse_text,
        None,
        "nats://HOST:PORT,...: how processes tell each other, instead of by PostgreSQL.",
        secret=True,
    ),
    Option(
        "registration",
        _choice("open", "closed"),
        "open",
        "Who may register: open|closed.",
        reloadable=True,
    ),
    Option("rate-limits", _choice("on", "off"), "on", "Rate limits: on|off.", reloadable=True),
    Option(
        "rate-registrations",
        _parse_rate,
        "12/min burst 50",
        "Accounts registered from one address; 100 times as many from all.",
        reloadable=True,
    ),
    Option(
        "rate-log-ins",
        _parse_rate,
        "60/min burst 50",
        "Log-ins from one address; 100 times as many from all.",
        reloadable=True,
    ),
    Option(
        "rate-wrong-passwords",
        _parse_rate,
        "6/min burst 20",
        "Wrong passwords for one user from one address.",
        reloadable=True,
    ),
    Option(
        "rate-guesses",
        _parse_rate,
        "60/min burst 500",
        "Wrong passwords for one user from all addresses.",
        reloadable=True,
    ),
    Option(
        "rate-reads",
        _parse_rate,
        "1000/s burst 10000",
        "Reads of one user; large answers count as several.",
        reloadable=True,
    ),
    Option(
        "rate-messages",
        _parse_rate,
        "50/s burst 200",
        "Messages sent, edited and deleted by one user.",
        reloadable=True,
    ),
    Option(
        "rate-message-bytes",
        _parse_rate,
        "1048576/s burst 67108864",
        "UTF-8 bytes of texts sent and edited from one address.",
        reloadable=True,
    ),
    Option(
        "max-message-bytes",
        _integer(1, 1 << 24),
        16384,
        "Maximum message size, UTF-8 bytes.",
        reloadable=True,
    ),
    Option(
        "min-password-length",
        _integer(1, 1024),
        5,
        "Minimum password length, characters.",
        reloadable=True,
    ),
    Option(
        "edit-seconds",
        _integer(0),
        0,
        "How long messages can be edited, 0: always.",
        reloadable=True,
    ),
    Option("first-contact", _choice("open", "known"), "open", "Who may write first: open|known."),
    Option(
        "max-inbox-messages",
        _integer(1),
        1_000_000,
        "Maximum messages in an inbox; sends to a full one are refused.",
        reloadable=True,
    ),
    Option(
        "max-inbox-bytes",
        _integer(1, 1 << 50),
        1 << 30,
        "Maximum size of the texts of an inbox, UTF-8 bytes; sends to a full one are refused.",
        reloadable=True,
    ),
    Option(
        "min-free-disk",
        _integer(0, 1 << 50),
        16 << 20,
        "Bytes of the disk of SQLite that sends leave free, 0: none.",
        reloadable=True,
    ),
    Option(
        "max-polls",
        _integer(0),
        10000,
        "Maximum polls held at once per process.",
        reloadable=True,
    ),
    Option(
        "max-connections-per-address",
        _integer(0),
        5000,
        "Maximum connections from one address, 0: no limit; trusted proxies have none.",
        reloadable=True,
    ),
    Option(
        "drain-seconds",
        _parse_seconds,
        10,
        "Time limit for finishing requests at shutdown.",
        reloadable=True,
    ),
    Option(
        "lame-duck-seconds",
        _parse_seconds,
        0,
        "How long a stopping daemon accepts requests while it reports not to be ready.",
        reloadable=True,
    ),
    Option("workers", _integer(1, 1024), 1, "Processes that share the port; needs PostgreSQL."),
    Option(
        "trusted-proxies",
        _parse_networks,
        "",
        "Networks whose X-Forwarded-For is trusted, separated by commas.",
    ),
    Option(
        "allowed-hosts",
        _parse_hosts,
        "",
        "Names in Host that are answered to, separated by commas.",
        reloadable=True,
    ),
    Option(
        "cors-origins",
        _parse_origins,
        "",
        "Origins whose browser apps may call the API, separated by commas; or *.",
    ),
    Option("access-log", _choice("on", "off"), "off", "Log one line per request: on|off."),
    Option("log-format", _one_of("text", "json"), "text", "Format of the log: text|json."),
    Option(
        "log-level",
        _one_of("debug", "info", "warn", "error"),
        "info",
        "Least level that is logged: debug|info|warn|error.",
        reloadable=True,
    ),
    Option(
        "directory",
        _choice("on", "off"),
        "off",
        "Whether users are found by the beginning of their names: on|off.",
    ),
    Option("show-email", _choice("all", "owner"), "all", "Who sees an email address: all|owner."),
    Option(
        "retention-days",
        _integer(0, 36_500),
        0,
        "How long messages are kept, 0: always.",
        reloadable=True,
    ),
)


def load(
    command_line: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Settings, list[str]]:
    """Load the settings; returns them with warnings about unknown environment variables.

    `command_line` holds the given options by name, among them `config`, the path of the TOML file.
    Raises `ConfigError`.
    """
    path = command_line.get("config", environment.get(PREFIX + "CONFIG"))
    file = {} if path is None else _read_toml(path)
    known = {option.name: option for option in OPTIONS}
    for key in file:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{_hint(key, known)}")
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
        except ValueError as error:
            shown = "the value" if option.secret else repr(without_password(value))
            raise ConfigError(f"{where}: {shown} {error}") from None
    variables = {option.variable for option in OPTIONS} | {PREFIX + "CONFIG"}
    warnings = [
        f"the environment variable {name} is unknown to chatd"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in variables
    ]
    return Settings(**values), warnings


def changes(before: Settings, after: Settings) -> tuple[list[Option], list[Option]]:
    """The options that differ: those that a running daemon can change, and the others."""
    changed = [
        option
        for option in OPTIONS
        if getattr(before, option.field) != getattr(after, option.field)
    ]
    return (
        [option for option in changed if option.reloadable],
        [option for option in changed if not option.reloadable],
    )


def to_environment(settings: Settings) -> dict[str, str]:
    """The environment variables from which `load` returns these settings."""
    texts = {}
    for option in OPTIONS:
        value = getattr(settings, option.field)
        if isinstance(value, bool):
            texts[option.variable] = next(
                word
                for word in ("on", "off", "open", "closed", "known", "all", "owner")
                if _parses_to(option, word, value)
            )
        elif isinstance(value, tuple):
            texts[option.variable] = " ".join(map(str, value))
        elif value is not None:
            texts[option.variable] = str(value)
    return texts


def _parses_to(option: Option, word: str, value: bool) -> bool:
    try:
        return bool(option.parse(word) == value)
    except ValueError:
        return False


def without_password(value: Any) -> Any:
    """A value as it may be printed: a URL in the wrong setting may have a password."""
    return _PASSWORD.sub(r"\1...@", value) if isinstance(value, str) else value


def _hint(key: str, known: Iterable[str]) -> str:
    """Which key may have been meant; empty if there is none like it."""
    similar = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1, cutoff=0.8)
    return f", did you mean {similar[0]!r}?" if similar else ""


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ConfigError(f"{path or 'config'}: {error.strerror}") from None
    if not content.strip():
        # What a full disk has left of it. With all defaults the daemon would use another database.
        raise ConfigError(f"{path}: the file is empty")
    try:
        # Some editors begin a file with this.
        return tomllib.loads(content.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:  # ValueError also for numbers of too many digits
        raise ConfigError(f"{path}: not TOML: {error}") from None
