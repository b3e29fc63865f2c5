"""A token goes round among processes, and each sends before it passes the token on.

So every message was sent before the next one's send began, and has to be received before it.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.tally import Tally
from tests.lanes.traffic import LARGE, MIDDLE, SMALL, Ledger, Note, note, random_size, send_with_handles

NOISE: Final = 1000
"""Sources from here on send beside the relay: in order each for itself."""


class Token(Protocol):
    """A way to say: it is your turn."""

    def await_turn(self, process: int, turn: int) -> None:
        """Until it is this process's turn."""

    def pass_on(self, process: int, turn: int) -> None:
        """To that process."""

    def used_by(self, process: int) -> list[Any]:
        """The channel ends that this process needs for it."""

    def close(self) -> None:
        """In whoever made it."""


class MemoryToken:
    """On a shared page: the hand-over takes less than a system call."""

    def __init__(self, processes: int) -> None:
        self._tally = Tally()

    def await_turn(self, process: int, turn: int) -> None:
        self._tally.wait(0, turn)

    def pass_on(self, process: int, turn: int) -> None:
        self._tally[0] = turn

    def used_by(self, process: int) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class PipeToken:
    """Through a pipe: the next process sleeps until then."""

    def __init__(self, processes: int) -> None:
        self._pipes = [os.pipe() for _ in range(processes)]

    def await_turn(self, process: int, turn: int) -> None:
        if turn:
            assert os.read(self._pipes[process][0], 1) == b"t"

    def pass_on(self, process: int, turn: int) -> None:
        os.write(self._pipes[process][1], b"t")

    def used_by(self, process: int) -> list[Any]:
        return []

    def close(self) -> None:
        while self._pipes:
            for end in self._pipes.pop():
                os.close(end)


class ChannelToken:
    """Through another channel of the package."""

    def __init__(self, processes: int) -> None:
        self._channels = [ipc.channel(int) for _ in range(processes)]

    def await_turn(self, process: int, turn: int) -> None:
        if turn:
            assert self._channels[process].receiver.recv(TIMEOUT) == turn

    def pass_on(self, process: int, turn: int) -> None:
        # At the end of the relay the next process may have left.
        with contextlib.suppress(ipc.ReceiverGone):
            self._channels[process].sender.send(turn)

    def used_by(self, process: int) -> list[Any]:
        following = (process + 1) % len(self._channels)
        return [self._channels[process].receiver, self._channels[following].sender]

    def close(self) -> None:
        for sender, receiver in self._channels:
            sender.close()
            receiver.close()


TOKENS: Final[dict[str, Callable[[int], Token]]] = {
    "memory": MemoryToken,
    "pipe": PipeToken,
    "channel": ChannelToken,
}


@dataclass(frozen=True)
class Traffic:
    """What the processes of a relay send."""

    sizes: tuple[int, ...] = (64,)
    handles: bool = False
    """Whether some messages carry files and senders."""
    noise: int = 0
    """How many messages of its own a process sends between two turns, at most."""


TRAFFIC: Final = {
    "small": Traffic(),
    "every size": Traffic((*SMALL, *MIDDLE, *LARGE)),
    "above 64 KiB": Traffic((65_537, 70_000)),
    "1 MiB": Traffic((1 << 20, 64)),
    "handles": Traffic(handles=True),
    "handles and sizes": Traffic((*SMALL, *MIDDLE, *LARGE), handles=True),
    "noise": Traffic(noise=40),
    "everything": Traffic((*SMALL, *MIDDLE, *LARGE), handles=True, noise=20),
}


class Runner:
    """What one process of a relay does."""

    def __init__(self, process: int, token: Token, traffic: Traffic, seed: int) -> None:
        self.process = process
        self.token = token
        self.traffic = traffic
        self.chance = random.Random(seed * 100 + process)
        self.noise = 0

    def send(self, sender: ipc.Sender[Note], source: int, number: int) -> None:
        """One message, as the traffic wants it."""
        sizes = self.traffic.sizes
        size = sizes[0] if len(sizes) == 1 else random_size(self.chance, sizes)
        files = replies = 0
        if self.traffic.handles and self.chance.random() < 0.3:
            files, replies = self.chance.choice([(1, 0), (3, 0), (0, 1), (2, 2)])
        send_with_handles(sender, note(source, number, size), files, replies)

    def make_noise(self, sender: ipc.Sender[Note], most: int) -> None:
        """Up to so many messages beside the relay."""
        for _ in range(self.chance.randint(0, most)):
            self.send(sender, NOISE + self.process, self.noise)
            self.noise += 1

    def run(self, sender: ipc.Sender[Note], processes: int, turns: int) -> None:
        """Take part in every one of its turns."""
        with sender:
            for turn in range(self.process, turns, processes):
                self.make_noise(sender, self.traffic.noise)
                self.token.await_turn(self.process, turn)
                self.send(sender, 0, turn)
                self.token.pass_on((turn + 1) % processes, turn + 1)


@contextlib.contextmanager
def relay(
    token_kind: str, traffic: Traffic, *, processes: int, turns: int, seed: int
) -> Iterator[tuple[ipc.Receiver[Note], Callable[[Ledger], None]]]:
    """Runs during the block. Yields the receiver, and what checks the ledger when everything has come."""
    token = TOKENS[token_kind](processes)
    sender, receiver = ipc.channel(Note)
    with contextlib.ExitStack() as stack:
        stack.callback(token.close)
        stack.callback(receiver.close)
        running = []
        with sender:
            for number in range(processes):
                runner = Runner(number, token, traffic, seed)
                arguments = [token.used_by(number)]
                child: Process[None] = Process(_run, runner, sender, processes, turns, *arguments)
                running.append(stack.enter_context(child))
        token.close()

        def finish(ledger: Ledger) -> None:
            for each in running:
                each.result()
            assert ledger.next[0] == turns, f"{ledger.next[0]} of {turns} came"

        yield receiver, finish


def _run(runner: Runner, sender: ipc.Sender[Note], processes: int, turns: int, *kept: Any) -> None:
    runner.run(sender, processes, turns)
    for ends in kept:
        for end in ends:
            end.close()
