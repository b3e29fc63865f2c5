"""Signals, at any moment: no message is lost or torn, and nobody sees EINTR."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ipc_channel as ipc
from tests.rust import commands as c
from tests.rust.commands import Parcel, numbered
from tests.rust.peers import TIMEOUT, Peer, start
from tests.rust.test_ends import FRAGMENTED, closing, senders


class Interrupted(Exception):
    """What the signal raises, as Ctrl-C raises KeyboardInterrupt."""


class Storm:
    """A signal every so often; while it is armed, the next one raises Interrupted."""

    def __init__(self) -> None:
        self.armed = False
        self.signals = 0
        self.interruptions = 0

    def interrupt(self, number: int, frame: Any) -> None:
        """The handler."""
        self.signals += 1
        if self.armed:
            self.armed = False
            self.interruptions += 1
            raise Interrupted

    def through(self, step: Callable[[], object], finished: Callable[[], bool]) -> None:
        """``step`` again and again, interrupted anywhere."""
        while True:
            try:
                self.armed = True
                while not finished():
                    step()
                self.armed = False
                return
            except Interrupted:
                pass


@contextlib.contextmanager
def storm() -> Iterator[Storm]:
    """One that rages inside the block."""
    made = Storm()
    previous = signal.signal(signal.SIGUSR1, made.interrupt)
    main, over = threading.main_thread().ident, threading.Event()
    assert main is not None

    def rage() -> None:
        while not over.wait(0.0007):
            signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=rage)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, previous)


def test_receives_that_signals_interrupt(peer: Peer) -> None:
    count, size = 40, 700_000
    sender, receiver = peer.bytes_channel()
    with receiver:
        peer.tell(c.Flood(sender, count, size))
        received: list[bytes] = []
        with storm() as signals:
            # One call into C for all of it: an interrupt between the receive and its storing would lose a message.
            signals.through(lambda: received.extend(map(receiver.recv, (TIMEOUT,))), lambda: len(received) == count)
        assert signals.interruptions
        assert received == [numbered(number, size) for number in range(count)]


def test_signals_that_do_not_raise_are_not_seen(peer: Peer) -> None:
    with peer.loop(c.LoopParcel, Parcel) as loop:
        with storm() as signals:
            while signals.signals < 30:
                ends, receivers = senders(peer, 10)
                with closing(receivers):
                    parcel = loop.turn(Parcel(content=FRAGMENTED, senders=ends))
                    assert parcel.content == FRAGMENTED
                    with closing(parcel.senders):
                        for number, sender in enumerate(parcel.senders):
                            sender.send(number)
                    assert [receiver.recv(TIMEOUT) for receiver in receivers] == list(range(10))


def test_flushes_that_signals_interrupt(peer: Peer) -> None:
    sender, receiver = peer.bytes_channel()
    permission, waiting = peer.channel(None)
    tally, tallies = peer.channel(c.Tally)

    def flush() -> None:
        with contextlib.suppress(ipc.SendTimeout):
            sender.flush(0.005)

    with sender, permission, tallies:
        peer.tell(c.Hold(receiver, waiting, tally))
        sender.send_many(numbered(number, 100_000) for number in range(100))
        with storm() as signals:
            signals.through(flush, lambda: signals.interruptions >= 10)
        permission.send(None)
        sender.flush(TIMEOUT)
        sender.close()
        assert tallies.recv(TIMEOUT) == c.Tally(100, 10_000_000, True, "disconnected")


def test_a_flush_does_not_wait_for_what_a_signal_handler_sends() -> None:
    count = 1000
    main = threading.main_thread().ident
    assert main is not None
    flushing, handled = threading.Event(), threading.Event()
    sender, receiver = ipc.bytes_channel(codec="rust")

    def send_more(number: int, frame: Any) -> None:
        sender.send_many([bytes(100)] * count)
        handled.set()

    def interrupt_and_read() -> None:
        flushing.wait()
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGUSR1)
        handled.wait()
        for _ in range(count):
            receiver.recv(TIMEOUT)

    previous = signal.signal(signal.SIGUSR1, send_more)
    thread = threading.Thread(target=interrupt_and_read)
    with sender, receiver:
        sender.send_many([bytes(100)] * count)
        thread.start()
        flushing.set()
        sender.flush(TIMEOUT)
        thread.join()
        assert sender.statistics().backlog
    signal.signal(signal.SIGUSR1, previous)


def test_a_peer_that_is_stopped_for_a_while(codec: Any) -> None:
    with start(codec, "Python serves") as peer, peer.loop(c.LoopBytes) as loop:
        peer.kill(signal.SIGSTOP)
        messages = [numbered(number, 200_000) for number in range(30)]
        loop.there.send_many(messages)
        time.sleep(0.05)
        peer.kill(signal.SIGCONT)
        assert [loop.back.recv(TIMEOUT) for _ in messages] == messages
