"""The other way round: a Rust program starts Python, which then runs the tests that use a peer, and that is the peer.

Whatever those tests find is in the output of the one here.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.rust.conftest import STARTED_BY_A_PEER
from tests.rust.peers import MEETINGS, PARENT, executable
from tests.support.start_methods import ROOT

FILES = ("meeting", "values", "sizes", "ends", "shared_memory", "sets_and_routers")
LIMIT = 170
"""Seconds for all of them."""


@pytest.mark.skipif(STARTED_BY_A_PEER, reason="this is such a run")
@pytest.mark.timeout(LIMIT + 10)
@pytest.mark.parametrize("meeting", MEETINGS)
def test_python_started_by_rust(codec: str, meeting: str) -> None:
    run = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider", "--no-header", "-k", "not huge"]
    files = [str(ROOT / f"tests/rust/test_{name}.py") for name in FILES]
    done = subprocess.run(
        [executable(codec), "start", "serve" if meeting == "Rust serves" else "connect", *run, *files],
        env={**os.environ, PARENT: f"{codec} {meeting}"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
