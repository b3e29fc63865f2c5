"""kill -9 of senders, at random moments, at every system call, and at random instructions.

What a sender had sent arrives, and after it at most the message that it was about to send; then comes the end.
"""

from __future__ import annotations

import pytest

from tests.lanes import kills
from tests.support.start_methods import run

TIMEOUT = 45


@pytest.mark.parametrize("reading", kills.READING)
@pytest.mark.parametrize("what", kills.SENDS)
def test_killed_at_any_moment(what: str, reading: str) -> None:
    """Broken by a message that is announced before it is whole, and by one that is held back in the sender."""
    rounds = 4 if what in kills.SLOW else 14
    found = run("subprocess", kills.kill_senders, what, reading, rounds, 1, timeout=TIMEOUT)
    assert found["messages"]


@pytest.mark.parametrize("what", kills.SENDS)
def test_killed_beside_an_honest_sender(what: str) -> None:
    """Broken by a lock, a place or a ring that senders share."""
    rounds = 3 if what in kills.SLOW else 8
    run("subprocess", kills.kill_senders, what, "meanwhile", rounds, 2, True, timeout=TIMEOUT)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("what", kills.SENDS)
def test_killed_at_every_system_call(what: str, shared: bool) -> None:
    """Broken by any two steps of a send, or of becoming busy, that must not be parted.

    Shared: the others go on while the victim stands still, whatever it was doing.
    """
    count = 2 if what in ("large", "many handles") else 4
    found = run("subprocess", kills.kill_senders_at_system_calls, what, count, shared, timeout=TIMEOUT)
    assert found["kills"] >= count


def test_killed_at_every_system_call_of_sharing_a_sender() -> None:
    """Broken by a sender that is on its way before it can be used without its first owner."""
    found = run("subprocess", kills.kill_sharers_at_system_calls, timeout=TIMEOUT)
    assert found["arrived"]


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("size", [64, 5000, 200_000])
def test_killed_at_random_instructions(size: int, shared: bool) -> None:
    """Broken by a record that is counted before it is written, and by a sender that holds others up when it stops."""
    found = run("subprocess", kills.kill_senders_at_instructions, size, 12, shared, 10, size, timeout=TIMEOUT)
    assert found["messages"]


@pytest.mark.parametrize("what", kills.SENDS)
@pytest.mark.parametrize("reading", kills.READING)
def test_a_killed_sender_of_a_bounded_channel(what: str, reading: str) -> None:
    """Broken by a sender that waits and, when it dies, leaves the receiver with an error in place of its messages."""
    rounds = 2 if what in kills.SLOW else 8
    run("subprocess", kills.kill_senders, what, reading, rounds, 3, False, 7, timeout=TIMEOUT)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("reading", kills.READING)
@pytest.mark.parametrize("what", kills.SENDS)
def test_killed_thousands_of_times(what: str, reading: str, shared: bool) -> None:
    """Broken as the tests above, by moments that are rarer."""
    rounds = 150 if what in kills.SLOW else 700
    run("subprocess", kills.kill_senders, what, reading, rounds, 4, shared, timeout=1700)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("size", [0, 8, 64, 5000, 65_536, 65_537, 200_000, 1 << 20])
def test_killed_at_hundreds_of_random_instructions(size: int, shared: bool) -> None:
    """Broken as the test of random instructions, by instructions that are hit more rarely."""
    run("subprocess", kills.kill_senders_at_instructions, size, 60, shared, 200, size, timeout=1700)
