"""What supervisor and workers share: the messages, and the work itself.

The same :func:`count_tokens` runs in the workers and in the check, so their counts are comparable.
"""

import io
import os
import sysconfig
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ipc_channel import Sender, SharedMemory

_TESTS_AND_PACKAGES: Final = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})


class Answer(msgspec.Struct, frozen=True):
    """What a worker found in one file."""

    number: int
    tokens: int
    source_bytes: int
    problem: str | None = None
    """Why the file does not tokenize, if so."""


class Job(msgspec.Struct):
    """One file to count. The worker's only way to answer is ``reply``, so its end tells of a lost job."""

    number: int
    source: SharedMemory
    reply: Sender[Answer]


class Hello(msgspec.Struct):
    """A worker's first message, through the one-shot server: here is how to reach me."""

    pid: int
    jobs: Sender[Job]


@dataclass(frozen=True, slots=True)
class Module:
    """A file to count."""

    name: str
    """Its path below the folder; printable."""
    path: Path
    size: int
    """In bytes, when the folder was listed."""


def count_tokens(number: int, source: bytes) -> Answer:
    """Tokenize one file."""
    tokens = 0
    try:
        with warnings.catch_warnings():
            # The files are other people's: what Python would warn them of is no news here.
            warnings.simplefilter("ignore")
            for _ in tokenize.tokenize(io.BytesIO(source).readline):
                tokens += 1
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError) as error:
        # Broken files are part of real folders. They count as such, whoever looks at them.
        return Answer(number, tokens, len(source), type(error).__name__)
    return Answer(number, tokens, len(source))


def standard_library() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(root: Path, *, whole: bool) -> list[Module]:
    """The ``*.py`` files below ``root``, the largest first, so that no worker is left alone with a long one.

    Parameters:
        root: the folder.
        whole: leave out nothing but hidden folders; else also tests and installed packages.

    Raises:
        OSError: the folder, or one below it, cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    found: list[Module] = []
    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (whole or name not in _TESTS_AND_PACKAGES)
        )
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                relative = str(path.relative_to(root))
                printable = relative.encode("utf-8", "backslashreplace").decode()
                found.append(Module(printable, path, path.stat().st_size))
    return sorted(found, key=lambda module: (-module.size, module.name))
