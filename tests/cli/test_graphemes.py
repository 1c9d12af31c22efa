"""Grapheme clusters and their widths."""

import pytest

from chatd.cli.graphemes import (
    clip,
    grapheme_width,
    next_boundary,
    previous_boundary,
    split_graphemes,
)

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
THUMB = "\U0001f44d\U0001f3fd"
FLAG = "\U0001f1e9\U0001f1ea"


@pytest.mark.parametrize(
    ("text", "clusters"),
    [
        ("", []),
        ("abc", ["a", "b", "c"]),
        ("e\u0301a", ["e\u0301", "a"]),
        ("你好", ["你", "好"]),
        ("कि", ["कि"]),
        (f"{FAMILY}{THUMB}", [FAMILY, THUMB]),
        (FLAG * 2 + FLAG[0], [FLAG, FLAG, FLAG[0]]),
        ("\u0301a", ["\u0301", "a"]),
        ("a\n\u0301", ["a", "\n", "\u0301"]),
        ("a\u202eb", ["a", "\u202e", "b"]),
        ("a\U0001f3fd", ["a", "\U0001f3fd"]),
    ],
)
def test_texts_are_split_into_what_readers_take_for_characters(
    text: str, clusters: list[str]
) -> None:
    assert list(split_graphemes(text)) == clusters


@pytest.mark.parametrize(
    ("cluster", "width"),
    [("a", 1), ("e\u0301", 1), ("你", 2), (FAMILY, 2), (THUMB, 2), ("\t", 4), ("\u202e", 6)],
)
def test_width_of_a_cluster(cluster: str, width: int) -> None:
    assert grapheme_width(cluster) == width


def test_boundaries_around_an_index() -> None:
    text = "ae\u0301b"
    assert [next_boundary(text, index) for index in range(5)] == [1, 3, 3, 4, 4]
    assert [previous_boundary(text, index) for index in range(5)] == [0, 0, 1, 1, 3]


@pytest.mark.parametrize(
    ("text", "clipped"),
    [("abcde", "abcde"), ("abcdef", "abcd…"), ("你好吗", "你好…"), ("ab你好", "ab你…"), ("", "")],
)
def test_clip_shortens_what_does_not_fit(text: str, clipped: str) -> None:
    assert clip(text, 5) == clipped
