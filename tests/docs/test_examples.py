"""Every program in ``examples`` runs, and says what it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.docs.programs import run
from tests.support.start_methods import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example: Path, tmp_path: Path) -> None:
    assert run(example, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_says_how_to_run_it(example: Path) -> None:
    documentation = ast.get_docstring(ast.parse(example.read_text()))
    assert documentation is not None
    assert f"\n    python {example.name}" in documentation


def test_there_are_examples() -> None:
    assert EXAMPLES
