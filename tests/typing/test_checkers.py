"""The files beside this one pass pyright in strict mode and mypy in strict mode, and can fail in both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CHECKED = sorted(path for path in HERE.glob("*.py") if not path.name.startswith(("test_", "__")))

COMMAND_LINE = "ipc_channel.cli."
"""Programs, not an interface."""

CHECKERS = {
    "pyright": [str(Path(sys.executable).with_name("basedpyright"))],
    "mypy": [sys.executable, "-m", "mypy", "--no-incremental", "--cache-dir=/dev/null"],
}


def check(checker: str, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [*CHECKERS[checker], *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_the_types_are_inferred(checker: str) -> None:
    assert CHECKED
    result = check(checker, *CHECKED)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_the_checker_sees_a_wrong_type(checker: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import ipc_channel as ipc\n\nnumber: int = ipc.channel(str).receiver.recv()\n")
    result = check(checker, wrong)
    assert result.returncode == 1
    assert '"str"' in result.stdout
    assert '"int"' in result.stdout


@pytest.mark.timeout(300)
def test_the_public_interface_has_no_unknown_or_ambiguous_types() -> None:
    # Its own check finds the package through the Python that comes first on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [*CHECKERS["pyright"], "--verifytypes", "ipc_channel", "--ignoreexternal", "--outputjson"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    symbols = json.loads(result.stdout)["typeCompleteness"]["symbols"]
    public = [symbol for symbol in symbols if symbol["isExported"] and not symbol["name"].startswith(COMMAND_LINE)]
    assert "ipc_channel.sender.Sender" in {symbol["name"] for symbol in public}
    assert [symbol["name"] for symbol in public if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]] == []
