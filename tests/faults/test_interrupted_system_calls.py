"""Signals that are none of our business: no wait ends, nobody sees EINTR, nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

import ipc_channel as ipc
from tests.faults import waits
from tests.faults.waits import Wait, wait_until_main_thread_waits
from tests.support.start_methods import run, start


def wait_through_alarms(kind: type[Wait], restart: bool) -> bool:
    """Wait while SIGALRM comes every two milliseconds; whether it was handled."""
    handled: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: handled.append(number))
    signal.siginterrupt(signal.SIGALRM, not restart)

    def release_later() -> None:
        time.sleep(0.06)
        wait.release()

    with kind() as wait:
        thread = threading.Thread(target=release_later)
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        try:
            result = wait.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        thread.join()
        assert result == wait.expected
        wait.check()
    return bool(handled)


@pytest.mark.parametrize("restart", [True, False], ids=["SA_RESTART", "without SA_RESTART"])
@pytest.mark.parametrize("kind", waits.ALL, ids=waits.name_of)
def test_a_handler_with_and_without_sa_restart(kind: type[Wait], restart: bool) -> None:
    # In a child: the test runner has plans of its own for SIGALRM.
    assert run("fork", wait_through_alarms, kind, restart)


def time_out_through_alarms(receiver_of: str) -> float:
    """A timeout is neither shortened nor prolonged without end by signals."""
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.siginterrupt(signal.SIGALRM, True)
    sender, receiver = ipc.channel(int, capacity=1)
    with sender, receiver, ipc.ReceiverSet[int]() as receivers, ipc.OneShotServer(int) as server:
        other_sender, other = ipc.channel(int)
        receivers.add(other)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        began = time.monotonic()
        try:
            match receiver_of:
                case "recv":
                    with pytest.raises(ipc.RecvTimeout):
                        receiver.recv(0.1)
                case "poll":
                    assert not receiver.poll(0.1)
                case "select":
                    assert receivers.select(0.1) == []
                case "accept":
                    with pytest.raises(ipc.AcceptTimeout):
                        server.accept(0.1)
                case "send":
                    sender.send(0)
                    with pytest.raises(ipc.SendTimeout):
                        sender.send(1, timeout=0.1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.monotonic() - began
        other_sender.close()
    return took


@pytest.mark.parametrize("what", ["recv", "poll", "select", "accept", "send"])
def test_a_timeout_passes_in_spite_of_signals_and_not_too_early(what: str) -> None:
    assert run("fork", time_out_through_alarms, what) >= 0.1


def wait_through_stops(kind: type[Wait], ready: Any, go_on: Any) -> None:
    """Wait while being stopped and continued; released by ``go_on``."""

    def release_later() -> None:
        wait_until_main_thread_waits()
        ready.send(None)
        go_on.recv()
        wait.release()

    with kind() as wait, ready, go_on:
        thread = threading.Thread(target=release_later)
        thread.start()
        result = wait.wait()
        thread.join()
        assert result == wait.expected
        wait.check()


@pytest.mark.parametrize("kind", waits.ALL, ids=waits.name_of)
def test_a_stop_and_a_continue(kind: type[Wait]) -> None:
    ready, made_ready = ipc.channel(None)
    go_on, go_on_receiver = ipc.channel(None)
    with made_ready, go_on, start("fork", wait_through_stops, kind, ready, go_on_receiver) as child:
        ready.close()
        go_on_receiver.close()
        made_ready.recv(20)
        for _ in range(3):
            os.kill(child.pid, signal.SIGSTOP)
            _wait_for_state(child.pid, "T")
            os.kill(child.pid, signal.SIGCONT)
            _wait_for_state(child.pid, "SR")
        go_on.send(None)
        child.result()


def _wait_for_state(pid: int, states: str) -> None:
    while True:
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] in states:
                return
        time.sleep(0.001)


def test_signals_while_a_huge_message_is_sent_and_received() -> None:
    run("fork", exchange_through_alarms)


def exchange_through_alarms() -> None:
    """Large messages both ways under a shower of signals."""
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.siginterrupt(signal.SIGALRM, True)
    content = bytes(range(256)) * 4096 * 16
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            for _ in range(10):
                sender.send(content)
                assert receiver.recv(20) == content
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
