"""The messages in docs/troubleshooting.md are those of the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.start_methods import ROOT

VARIES = "…"
"""Stands in the document, and here in the sources' texts, for what differs from case to case."""

DOCUMENT = ROOT / "docs" / "troubleshooting.md"


def quoted_messages() -> list[str]:
    """What stands in backquotes in a heading, where the whole heading consists of messages, and is not code."""
    found: list[str] = []
    for line in DOCUMENT.read_text().splitlines():
        heading = re.fullmatch(r"### (?:[^`]*: )?(`.+`)", line)
        if heading:
            found += re.findall("`([^`]+)`", heading[1])
    return found


def texts_of_python(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else VARIES for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def texts_of_rust(path: Path) -> Iterator[str]:
    for literal in re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text(), re.DOTALL):
        joined = re.sub(r"\\\n\s*", "", literal)
        yield re.sub(r"\{[^{}]*\}", VARIES, joined)


@pytest.fixture(scope="module")
def texts() -> str:
    found: list[str] = []
    for path in sorted((ROOT / "python").rglob("*.py")):
        found += texts_of_python(path)
    for path in sorted((ROOT / "crates").rglob("src/**/*.rs")):
        found += texts_of_rust(path)
    return "\n".join(found)


@pytest.mark.parametrize("message", quoted_messages())
def test_message_is_in_the_sources(message: str, texts: str) -> None:
    if message in texts:
        return
    # Joined from two literals, or the source puts values where the document has words: piece by piece.
    pieces = [piece.strip(" :;,()<>") for piece in message.split(VARIES)]
    missing = [piece for piece in pieces if piece not in texts]
    assert not missing
    assert any(len(piece) > 7 for piece in pieces)


def test_there_are_messages() -> None:
    assert len(quoted_messages()) > 40
