"""Every program in ``examples`` runs, and says what it is."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.start_methods import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=50)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        print(output)
        raise
    assert process.returncode == 0, output
    assert output
    assert "Traceback" not in output
    assert "Exception ignored" not in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_says_how_to_run_it(example: Path) -> None:
    documentation = ast.get_docstring(ast.parse(example.read_text()))
    assert documentation is not None
    assert f"\n    python {example.name}" in documentation


def test_there_are_examples() -> None:
    assert EXAMPLES
