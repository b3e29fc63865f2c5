"""The wheel installs into an empty environment and works there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.start_methods import ROOT

PROGRAM = '''
import os
import subprocess
import sys

import msgspec

import ipc_channel as ipc


class Question(msgspec.Struct):
    number: int
    reply: ipc.Sender[int]


CHILD = """
import sys
from program import Question
import ipc_channel as ipc

questions, receiver = ipc.channel(Question)
with receiver:
    with ipc.connect(sys.argv[1], ipc.Sender[Question]) as first:
        first.send(questions)
    for question in receiver:
        with question.reply as reply:
            reply.send(question.number ** 2)
"""


def main() -> None:
    assert "site-packages" in ipc.__file__, ipc.__file__
    with ipc.OneShotServer(ipc.Sender[Question]) as server:
        child = subprocess.Popen([sys.executable, "-W", "error", "-c", CHILD, server.name])
        end, questions = server.accept(timeout=30)
    with end, questions:
        for number in range(100):
            reply, answers = ipc.channel(int)
            questions.send(Question(number, reply))
            with answers:
                assert answers.recv(timeout=30) == number**2
    assert child.wait(timeout=30) == 0
    print("answered")


if __name__ == "__main__":
    main()
'''


def run(*command: str | os.PathLike[str], cwd: Path) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONWARNINGS", "VIRTUAL_ENV"}
    }
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    # Not in the time limit of the test alone: when that one strikes, a build must not go on.
    process = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder outside the tree; removed, for an environment is large."""
    path = tmp_path_factory.mktemp("wheel")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    """The one wheel that a build makes; cargo has compiled it already, as `make` does before the tests."""
    tool = [sys.executable, "-m", "maturin", "build", "--release", "--locked", "--interpreter", sys.executable]
    run(*tool, "--out", folder / "dist", cwd=ROOT)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.mark.timeout(600)
def test_one_wheel_for_every_python_from_3_11_on(wheel: Path) -> None:
    name, _, python, abi, platform = wheel.name.removesuffix(".whl").split("-")
    assert (name, python, abi) == ("ipc_channel", "cp311", "abi3")
    assert "linux" in platform


@pytest.mark.timeout(600)
def test_the_wheel_holds_the_package_its_types_and_its_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = [name.partition(".dist-info/")[2] for name in archive.namelist() if ".dist-info/" in name]
    sources = {
        str(path.relative_to(ROOT / "python"))
        for pattern in ("*.py", "*.pyi", "py.typed")
        for path in (ROOT / "python").rglob(pattern)
    }
    assert {"ipc_channel/__init__.py", "ipc_channel/_core.pyi", "ipc_channel/py.typed"} <= sources
    assert held == sources | {"ipc_channel/_core.abi3.so"}
    assert {"licenses/LICENSE-MIT", "licenses/LICENSE-APACHE", "entry_points.txt"} <= set(about)


@pytest.mark.timeout(600)
def test_it_works_between_two_processes_of_an_empty_environment(wheel: Path, folder: Path) -> None:
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=folder)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    work = folder / "work"
    work.mkdir()
    (work / "program.py").write_text(PROGRAM)
    assert run(python, "-W", "error", "program.py", cwd=work) == "answered\n"
    assert "demo" in run(environment / "bin" / "ipc-channel", "--help", cwd=work)
