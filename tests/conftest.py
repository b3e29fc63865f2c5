"""Around every test and around the whole run: nothing is left behind."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import ipc_channel as ipc
from tests.support import leaks

# A pool of threads in numpy's linear algebra would be alive in every test that forks.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Children are as strict as the tests themselves.
os.environ["PYTHONWARNINGS"] = "error"

# No test fails for being slow, and none depends on what an earlier run has stored.
settings.register_profile("tests", deadline=None, database=None, print_blob=True)
settings.load_profile("tests")

_TEMPORARY = pytest.StashKey[Path]()
_LIBRARIES_OWN = ("pytest-of-", "pymp-")
"""pytest's folders, and those of multiprocessing, which removes them when the interpreter ends."""


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a temporary folder of its own, so that whatever appears in it was left by a test."""
    folder = Path(tempfile.mkdtemp(prefix="tests-"))
    folder.chmod(0o1777)  # children of another user write here too
    config.stash[_TEMPORARY] = folder
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    # At exit, not when pytest ends: multiprocessing removes its own files later than that.
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a child made by fork
        shutil.rmtree(folder, ignore_errors=True)


def _files(config: pytest.Config) -> set[str]:
    folder = config.stash[_TEMPORARY]
    return {f"file {path}" for path in folder.iterdir() if not path.name.startswith(_LIBRARIES_OWN)}


def _bind_once() -> None:
    """The next process that binds a socket removes what one that was killed while it did so has left."""
    ipc.OneShotServer(int).close()


def _wait_once() -> None:
    """A thread makes the one descriptor that wakes it at its first wait and keeps it: let the main thread do so now."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver, pytest.raises(ipc.RecvTimeout):
        receiver.recv(timeout=0.0001)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_by_the_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the last test for what is there at the end of the run and was not at its start."""
    _wait_once()
    before = leaks.take()
    yield
    _bind_once()
    left = leaks.leaked_since(before) + sorted(_files(request.config))
    assert not left, "the run left behind:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def nothing_left_by_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test for what is there at its end and was not at its start."""
    before, files = leaks.take(), _files(request.config)
    yield
    if _files(request.config) - files:
        _bind_once()
    left = leaks.leaked_since(before) + sorted(_files(request.config) - files)
    if left:
        leaks.kill_children(before)
    assert not left, "this test left behind:\n" + "\n".join(left)
