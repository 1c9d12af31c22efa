"""URLs of NATS servers."""

from __future__ import annotations

import pytest

from chatd.nats.address import Address, Server, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats://a", Address((Server("a", 4222),))),
        ("nats://a:1,b", Address((Server("a", 1), Server("b", 4222)))),
        ("nats://a:1,nats://b:2/", Address((Server("a", 1), Server("b", 2)))),
        ("tls://[::1]:7,[fe80::1]", Address((Server("::1", 7), Server("fe80::1", 4222)), tls=True)),
        ("nats://u:p%40%3Aw@a", Address((Server("a", 4222),), user="u", password="p@:w")),
        ("nats://t%2Cn@a,b", Address((Server("a", 4222), Server("b", 4222)), token="t,n")),
        ("nats://a/staging_2-x", Address((Server("a", 4222),), prefix="staging_2-x")),
        ("nats://a,a:4222", Address((Server("a", 4222),))),
    ],
)
def test_urls(text: str, expected: Address) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hidden",
        "nats://",
        "nats://hidden@",
        "http://u:hidden@a",
        "nats://u:hidden@a:0",
        "nats://u:hidden@a:65536",
        "nats://u:hidden@a:x",
        "nats://u:hidden@a,,b",
        "nats://u:hid@den@a",
        "nats://u:hid/den@a",
        "nats://:hidden@a",
        "nats://hidden:@a",
        "nats://u:hidden@a/hid.den",
        "nats://u:hidden@a?hidden=1",
        "nats://u:hidden@[a]",
        "nats://u:hidden@a b",
    ],
)
def test_wrong_urls_are_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not|one|before|the prefix) ") as wrong:
        parse(text)
    assert "hid" not in str(wrong.value)


def test_the_location_has_no_secret() -> None:
    assert parse("tls://u:s3cret@a:1,[::1]").location == "tls://a:1,[::1]:4222"
    assert "s3cret" not in repr(parse("nats://s3cret@a"))
