"""The programs of the documentation: which there are in a Markdown text, and how one is run.

Those of a text are its ``python`` blocks; what they print are the ``text`` blocks after them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.start_methods import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
"""Those that are tested."""

CONTINUES = "# continues"
"""First line of a block that goes on with the program of the block before."""

FILE = "# file: "
"""First line of a block that is a file beside the next program, under the name that follows."""


@dataclass
class Program:
    """One program: its source, and the files that it needs beside it."""

    document: Path
    line: int
    source: str
    files: dict[str, str] = field(default_factory=dict)
    output: str | None = None
    """What the document says that it prints, if it says so."""


def programs(document: Path) -> list[Program]:
    """The programs of a document, in order. ValueError for a block that would not be run."""
    found: list[Program] = []
    files: dict[str, str] = {}
    before = ""
    for line, info, source in _blocks(document):
        if info.startswith("py") and info != "python":
            raise ValueError(f"{document.name}:{line}: a block marked {info!r} would not be tested; use 'python'")
        if info == "text" and before == "python":
            if files or found[-1].output is not None:
                raise ValueError(f"{document.name}:{line}: there is no program here that could print this")
            found[-1].output = source
        before = info
        if info != "python":
            continue
        first = source.partition("\n")[0]
        if first.startswith(CONTINUES):
            if not found or files:
                raise ValueError(f"{document.name}:{line}: there is no program here to continue")
            if found[-1].output is not None:
                raise ValueError(f"{document.name}:{line}: the output of a program comes after all of its blocks")
            found[-1].source += source
        elif first.startswith(FILE):
            files[first.removeprefix(FILE).strip()] = source
        else:
            found.append(Program(document, line, source, files))
            files = {}
    if files:
        raise ValueError(f"{document.name}: no program comes after the file {', '.join(files)}")
    return found


def run(program: Path, folder: Path) -> str:
    """Run a program in a folder, warnings being errors, and return what it prints, standard error included.

    AssertionError if it fails. At the time limit it is killed, with all that it has started.
    """
    # Those who try it have the environment's commands on their path.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(program)],
        cwd=folder,
        env={**os.environ, "PATH": path},
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
    # What could only be reported, as in a destructor, does not change the exit code.
    assert "Traceback" not in output, output
    assert "Exception ignored" not in output, output
    return output


def _blocks(document: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, info string and text of every fenced block."""
    opened: tuple[int, str, str] | None = None
    text: list[str] = []
    for number, line in enumerate(document.read_text().splitlines(), 1):
        stripped = line.strip()
        if opened is None:
            if stripped.startswith("```"):
                info = stripped.lstrip("`")
                opened = (number, info.strip(), stripped[: len(stripped) - len(info)])
                indent = len(line) - len(line.lstrip())
                text = []
        elif stripped == opened[2]:
            yield opened[0], opened[1], "".join(text)
            opened = None
        else:
            text.append(line[min(indent, len(line) - len(line.lstrip())) :] + "\n")
    if opened is not None:
        raise ValueError(f"{document.name}:{opened[0]}: the block is not closed")
