"""The leak checks around every test do see each kind of leak."""

from __future__ import annotations

import mmap
import os
import socket
import threading

import pytest

from tests.support import leaks


@pytest.fixture
def before() -> leaks.Held:
    return leaks.take()


def test_nothing_is_no_leak(before: leaks.Held) -> None:
    assert leaks.leaked_since(before, grace=0.0) == []


def test_a_descriptor_is_seen(before: leaks.Held) -> None:
    with socket.socket() as held:
        (line,) = leaks.take().more_than(before)
        assert line.startswith(f"descriptor {held.fileno()}: socket:")


def test_another_descriptor_under_the_same_number_is_seen() -> None:
    with socket.socket() as held, socket.socket() as other:
        before = leaks.take()
        os.dup2(other.fileno(), held.fileno())
        (line,) = leaks.take().more_than(before)
        assert line.startswith(f"descriptor {held.fileno()}: socket:")


def test_a_mapping_is_seen(before: leaks.Held) -> None:
    number = os.memfd_create("leaked")
    os.truncate(number, 4096)
    mapping = mmap.mmap(number, 4096)
    os.close(number)
    with mapping:
        # The second line is Python's own duplicate of the descriptor.
        assert "1 × mapping /memfd:leaked (deleted)" in leaks.take().more_than(before)


def test_a_child_is_seen_alive_and_as_a_zombie(before: leaks.Held) -> None:
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        assert leaks.take().more_than(before) == [f"child {child} (alive)"]
    finally:
        os.kill(child, 9)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        after = leaks.take().more_than(before)
        os.waitpid(child, 0)
    assert after == [f"child {child} (zombie)"]


def test_a_thread_is_seen(before: leaks.Held) -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, name="straggler")
    thread.start()
    try:
        assert leaks.take().more_than(before) == [f"thread {thread.native_id}: straggler"]
    finally:
        leave.set()
        thread.join()


def test_what_only_the_garbage_collector_frees_is_no_leak(before: leaks.Held) -> None:
    class Knot:
        def __init__(self) -> None:
            self.itself = self
            self.number = os.dup(0)

        def __del__(self) -> None:
            os.close(self.number)

    Knot()
    assert leaks.leaked_since(before) == []
