"""`KeyReader`: keys and pastes in the bytes from a terminal."""

import pytest

from chatd.cli.keys import KeyReader, Paste


def read(*pieces: bytes) -> list[str | Paste]:
    reader = KeyReader()
    return [key for piece in pieces for key in reader.feed(piece)]


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        ("hé你".encode(), ["h", "é", "你"]),
        (b"\x1b[A\x1bOB\x1b[1;5Cx", ["\x1b[A", "\x1bOB", "\x1b[1;5C", "x"]),
        (b"\x1bb\x1b\r\x1b\x7f", ["\x1bb", "\x1b\r", "\x1b\x7f"]),
        (b"\x1b[?62;4c\x1b[12;40R!", ["\x1b[?62;4c", "\x1b[12;40R", "!"]),
        # F1 on the Linux console.
        (b"\x1b[[Ax", ["\x1b[[A", "x"]),
        (b"\x1b[\xc3\xa9", ["\x1b[", "é"]),
        (b"\xff", ["\ufffd"]),
    ],
)
def test_bytes_become_keys_however_they_are_split(data: bytes, keys: list[str]) -> None:
    assert read(data) == keys
    assert read(*[bytes([byte]) for byte in data]) == keys


def test_pastes_keep_their_lines_however_they_are_split() -> None:
    data = "a\x1b[200~one\r\n你\rthree\n\x1b[201\x1b[201~b".encode()
    keys = ["a", Paste("one\n你\nthree\n\x1b[201"), "b"]
    assert read(data) == keys
    assert read(*[bytes([byte]) for byte in data]) == keys
    assert read(data[:20], data[20:]) == keys
