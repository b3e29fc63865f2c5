"""Peers for tests: each version, each way to meet; or the one that has started this run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.rust.peers import MEETINGS, PARENT, PROGRAMS, Peer, executable, meet_parent, start

STARTED_BY_A_PEER = PARENT in os.environ


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A run that a peer has started has the tests that use it, and no others."""
    if STARTED_BY_A_PEER:
        items[:] = [item for item in items if "peer" in getattr(item, "fixturenames", ())]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test, so that no test's time is spent on it. Why it fails, the tests say."""
    wanted = any("built" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        with contextlib.suppress(AssertionError):
            for codec in PROGRAMS:
                executable(codec)


@pytest.fixture(scope="session")
def built() -> None:
    """All programs."""
    for codec in PROGRAMS:
        executable(codec)


@pytest.fixture(scope="session")
def parent() -> Iterator[Peer]:
    """The peer that has started this run."""
    with meet_parent() as peer:
        yield peer


@pytest.fixture(params=PROGRAMS)
def codec(request: pytest.FixtureRequest, built: None) -> str:
    """What ``codec=`` takes, for each version."""
    return str(request.param)


if STARTED_BY_A_PEER:

    @pytest.fixture
    def peer(parent: Peer) -> Peer:
        """The program that has started this run."""
        return parent

else:

    @pytest.fixture(params=[f"{codec} {meeting}" for codec in PROGRAMS for meeting in MEETINGS])
    def peer(request: pytest.FixtureRequest, built: None) -> Iterator[Peer]:
        """A program of each version, met in each way."""
        with start(*request.param.split(" ", 1)) as peer:
            yield peer
