"""Short texts, of which one str may stand for all that are equal: it must never stand for another one."""

import itertools
import string
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import ipc_channel as ipc
from ipc_channel.codecs.rust import VERSIONS, rust_codec

LONGEST_KEPT = 32
LETTERS = "ab"


def neighbours(length: int) -> Iterator[str]:
    """Texts of that length that differ in one place, or in two next to each other."""
    yield LETTERS[0] * length
    for width, place in itertools.product((1, 2), range(length)):
        yield (LETTERS[0] * place + LETTERS[1] * width + LETTERS[0] * length)[:length]


LENGTHS = range(LONGEST_KEPT + 9)
ALL = [text for length in LENGTHS for text in neighbours(length)]
RUNS = [letter * length for letter in string.printable for length in LENGTHS]


def by_postcard() -> Callable[[Any], Any]:
    codec = rust_codec(list[str], VERSIONS["rust"])
    return lambda texts: codec.decode(codec.encode(texts))


def by_literals() -> Callable[[Any], Any]:
    def there_and_back(texts: list[str]) -> list[str]:
        # A few at a time: a larger message is pickled.
        back = []
        sender, receiver = ipc.channel()
        with sender, receiver:
            for start in range(0, len(texts), 50):
                sender.send(texts[start : start + 50])
                back += receiver.recv()
        return back

    return there_and_back


@pytest.mark.parametrize("way", [by_postcard, by_literals])
def test_texts_that_hardly_differ_are_told_apart(way: Callable[[], Callable[[Any], Any]]) -> None:
    there_and_back = way()
    # One that comes a second time at its place is kept, and found the third time.
    thrice = [text for text in ALL + RUNS for _ in range(3)]
    for texts in (ALL, thrice, thrice[::-1], ALL):
        assert there_and_back(texts) == texts


def test_what_comes_again_is_the_same_str() -> None:
    codec = rust_codec(str, VERSIONS["rust"])
    payload = codec.encode("never seen before: 27")
    first, second, third = (codec.decode(payload) for _ in range(3))
    assert first == second == third
    assert second is third


def test_what_is_too_long_is_made_anew() -> None:
    codec = rust_codec(str, VERSIONS["rust"])
    payload = codec.encode("x" * (LONGEST_KEPT + 1))
    assert len({id(text) for text in [codec.decode(payload) for _ in range(5)]}) == 5


def test_bytes_that_are_no_text_are_refused_each_time() -> None:
    codec = rust_codec(str, VERSIONS["rust"])
    for _ in range(4):
        with pytest.raises(ipc.DecodeError, match="not UTF-8"):
            codec.decode(b"\x02\xff\xfe")
        assert codec.decode(b"\x02ok") == "ok"


class Named(msgspec.Struct):
    name: str


def test_texts_beyond_ascii() -> None:
    codec = rust_codec(list[Named], VERSIONS["rust-0.20"])
    named = [Named(text) for text in ("é", "日本", "🦀", "e\u0301", "\x00", "\x00\x00", "") for _ in range(3)]
    assert codec.decode(codec.encode(named)) == named
