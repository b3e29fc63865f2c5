"""Random programs over several processes, and a model that says what each step must do.

Steps follow each other: a step begins when the one before has ended. So everything that is sent has one order, except
within a burst, where several processes send at the same time. A program is its seed: each step draws from a generator
of its own, so that steps can be left out of a program that fails (``python -m tests.lanes.programs SEED STEPS``).

Apart from the tests, so that the process that runs programs need not import pytest.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import ipc_channel as ipc
from tests.lanes import actors
from tests.lanes.processes import TIMEOUT, adopt_orphans, ended
from tests.lanes.tally import Tally
from tests.support import leaks

MOST_CHANNELS: Final = 8
MOST_PROCESSES: Final = 6
INLINE: Final = 66_000
"""Bytes above which a payload lies in no socket."""

ROOM: Final = 150_000
"""What unread messages of a channel may cost where a channel is nothing but a socket."""


class ProgramError(AssertionError):
    """A step did something else than the model says."""


@dataclass(eq=False)
class Message:
    """A message that was sent, or may have been."""

    number: int
    process: int
    ends: list[End] = field(default_factory=list)


@dataclass(eq=False)
class End:
    """An end of a channel, wherever it is."""

    name: int
    channel: Channel
    sends: bool


@dataclass(eq=False)
class Part:
    """Messages that are received in any order of these rows, each of which is in order."""

    rows: list[list[Message]]
    doubtful: list[Message] = field(default_factory=list)
    """Each the last of its row, if it was sent at all."""


@dataclass(eq=False)
class Channel:
    """What the model knows of a channel."""

    rank: int
    capacity: int | None
    senders: int = 1
    receiver: bool = True
    unread: list[Part] = field(default_factory=list)
    vague: set[int] = field(default_factory=set)
    """Processes that had let all their senders go and may or may not have room again."""
    mixed: set[int] = field(default_factory=set)
    """Processes that got a sender from another one."""

    def messages(self) -> list[Message]:
        """Everything that is unread, and what may be."""
        return [message for part in self.unread for row in part.rows for message in row]

    def certain(self) -> int:
        """How many messages are unread for sure."""
        return sum(message not in part.doubtful for part in self.unread for row in part.rows for message in row)


class Process:
    """What the model knows of a process."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.control = control
        self.ends: list[End] = []

    def senders(self) -> list[End]:
        """Those that it holds."""
        return [end for end in self.ends if end.sends]

    def receivers(self) -> list[End]:
        """Those that it holds."""
        return [end for end in self.ends if not end.sends]


@dataclass(frozen=True)
class Shape:
    """What kind of programs."""

    steps: int = 60
    typed: bool = True
    long_backlogs: bool = True
    bounded: bool = False


class Program:
    """One program, running."""

    def __init__(self, seed: int, shape: Shape) -> None:
        self.seed = seed
        self.shape = shape
        self.tally = Tally(16)
        self.processes: list[Process] = []
        self.channels: list[Channel] = []
        self.names = 0
        self.numbers = 0
        self.chance = random.Random(seed)
        self.said: list[str] = []

    # Talking to processes

    def start(self) -> None:
        """The processes that a program begins with."""
        for _ in range(3):
            pid, control = actors.start(self.tally, self.shape.typed, [each.control for each in self.processes])
            process = Process(pid, control)
            self.processes.append(process)
            self.answer(process)

    def tell(self, process: Process, *command: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Begin a step."""
        actors.put(process.control, command, descriptors)

    def answer(self, process: Process) -> Any:
        """The outcome of a step: what it returned, or the name of what it raised."""
        if not select.select([process.control], [], [], TIMEOUT)[0]:
            os.kill(process.pid, signal.SIGALRM)  # it writes down where it is
            ended(process.pidfd, 5)
            raise ProgramError(f"process {process.pid} does not answer")
        try:
            (kind, value), _ = actors.get(process.control)
        except (EOFError, ConnectionError):
            raise ProgramError(f"process {process.pid} died") from None
        if kind == "failed":
            raise ProgramError(f"process {process.pid} failed:\n{value}")
        return Raised(value) if kind == "raised" else value

    def do(self, process: Process, *command: Any) -> Any:
        """A whole step."""
        self.tell(process, *command)
        return self.answer(process)

    def expect(self, outcome: Any, *allowed: Any) -> None:
        """It is one of those."""
        if outcome not in allowed:
            raise ProgramError(f"{outcome!r} in place of {' or '.join(map(repr, allowed))}")

    def say(self, what: str) -> None:
        """Note what this step is."""
        self.said.append(what)

    # Choosing

    def held(self, sends: bool, accept: Callable[[Process, End], bool] = lambda process, end: True) -> Any:
        """Some end that some process holds, or None."""
        found = [
            (process, end)
            for process in self.processes
            for end in (process.senders() if sends else process.receivers())
            if accept(process, end)
        ]
        return self.chance.choice(found) if found else None

    def name(self) -> int:
        """A new name of an end."""
        self.names += 1
        return self.names

    def number(self, count: int = 1) -> int:
        """New numbers of messages; the first of them."""
        self.numbers += count
        return self.numbers - count + 1

    # The model

    def room(self, channel: Channel) -> int:
        """What further unread messages of it may cost."""
        if self.shape.long_backlogs:
            return 1 << 60
        return ROOM - sum(cost(message.number) for message in channel.messages())

    def lose(self, end: End) -> None:
        """An end is no more."""
        channel = end.channel
        if end.sends:
            channel.senders -= 1
        else:
            channel.receiver = False
            unread, channel.unread = channel.messages(), []
            for message in unread:
                for inner in message.ends:
                    self.lose(inner)

    def let_go(self, process: Process, end: End) -> None:
        """A process has an end no more."""
        process.ends.remove(end)
        if end.sends and all(other.channel is not end.channel for other in process.senders()):
            end.channel.vague.add(process.pid)

    def get(self, process: Process, ends: Iterable[End]) -> None:
        """A process has them now. What it may send by a sender that comes back is another test's concern."""
        for end in ends:
            process.ends.append(end)
            if end.sends:
                end.channel.mixed.add(process.pid)

    def full(self, process: Process, channel: Channel) -> bool | None:
        """Whether a bounded channel has no room for this process; None if that cannot be said."""
        if channel.capacity is None:
            return False
        own = sum(message.process == process.pid for message in channel.messages())
        if not own:
            channel.vague.discard(process.pid)
        elif process.pid in channel.vague | channel.mixed:
            return None
        return own >= channel.capacity

    def match(self, process: Process, end: End, came: Iterable[tuple[int, list[int]]]) -> None:
        """What was received is what the model has next."""
        for number, names in came:
            message = self.pop(end.channel, number)
            found = {inner.name: inner for inner in message.ends}
            self.expect(sorted(names), sorted(found))
            self.get(process, found.values())

    def pop(self, channel: Channel, number: int) -> Message:
        """The next message, which has that number."""
        while channel.unread:
            part = channel.unread[0]
            for row in part.rows:
                if row and row[0].number == number:
                    return row.pop(0)
            if any(row and row[0] not in part.doubtful for row in part.rows):
                heads = [row[0].number for row in part.rows if row]
                raise ProgramError(f"message {number} came in place of {heads}")
            channel.unread.pop(0)
        raise ProgramError(f"message {number} came where none was left")

    def empty(self, channel: Channel) -> bool:
        """Whether nothing certain is unread."""
        return all(message in part.doubtful for part in channel.unread for row in part.rows for message in row)

    # Steps

    def step_make(self) -> None:
        if len(self.channels) >= MOST_CHANNELS:
            return
        process = self.chance.choice(self.processes)
        capacity = self.chance.choice([None, 1, 2, 5]) if self.shape.bounded else None
        channel = Channel(len(self.channels), capacity)
        self.channels.append(channel)
        sender, receiver = End(self.name(), channel, True), End(self.name(), channel, False)
        self.say(f"{process.pid} makes channel {channel.rank}: {sender.name} to {receiver.name}, {capacity=}")
        self.expect(self.do(process, "make", sender.name, receiver.name, capacity), None)
        process.ends += [sender, receiver]

    def step_send(self) -> None:
        choice = self.held(True)
        if choice is None:
            return
        process, end = choice
        channel = end.channel
        if not channel.receiver:
            self.say(f"{process.pid} sends by {end.name} to nobody")
            self.expect(self.do(process, "send_until_gone", end.name), None)
            return
        number = self.number()
        if cost(number) > self.room(channel):
            return
        # Ends of channels that were made later only: so no channel is ever in itself.
        movable = [other for other in process.ends if other.channel.rank > channel.rank and other is not end]
        moved = self.chance.sample(movable, min(len(movable), self.chance.choice([0, 0, 1, 2])))
        moved.sort(key=lambda other: not other.sends)
        files = self.chance.choice([0, 0, 0, 0, 1, 4, 260])
        memory = self.chance.random() < 0.1
        names = [other.name for other in moved]
        self.say(f"{process.pid} sends {number} by {end.name}, {names=}, {files=}, {memory=}")
        outcome = self.do(process, "send", end.name, number, names, files, memory, channel.capacity is None)
        full = self.full(process, channel)
        self.expect(outcome, *([None] if full is not True else []), *([Raised("Full")] if full is not False else []))
        if outcome is None:
            channel.unread.append(Part([[Message(number, process.pid, moved)]]))
            for other in moved:
                self.let_go(process, other)

    def step_receive(self) -> None:
        choice = self.held(False)
        if choice is None:
            return
        process, end = choice
        self.receive(
            process, end, self.chance.choice(["try_recv", "recv", "recv_many", "fileno", "poll", "set", "loop"])
        )

    def receive(self, process: Process, end: End, way: str) -> bool:
        """One receive, checked; False at the end of the stream."""
        channel = end.channel
        most = self.chance.choice([1, 3, 1000])
        waits = not self.empty(channel) or (channel.senders == 0 and not channel.unread)
        self.say(f"{process.pid} receives from {end.name} by {way}")
        outcome = self.do(process, "receive", end.name, way, most, TIMEOUT if waits else 0.002)
        if isinstance(outcome, Raised):
            if not self.empty(channel):
                raise ProgramError(f"{outcome!r}, and unread are {[m.number for m in channel.messages()]}")
            channel.unread.clear()
            if channel.senders:
                self.expect(outcome, Raised("Empty"), Raised("RecvTimeout"))
                return True
            if not waits and outcome in (Raised("Empty"), Raised("RecvTimeout")):
                return True  # the end of what a killed process may have sent need not be there at once
            self.expect(outcome, Raised("Disconnected"))
            return False
        self.match(process, end, outcome)
        return True

    def step_clone(self) -> None:
        choice = self.held(True)
        if choice is None:
            return
        process, end = choice
        twin = End(self.name(), end.channel, True)
        self.say(f"{process.pid} clones {end.name} as {twin.name}")
        self.expect(self.do(process, "clone", end.name, twin.name), None)
        process.ends.append(twin)
        end.channel.senders += 1

    def step_close(self) -> None:
        choice = self.held(self.chance.random() < 0.85)
        if choice is None:
            return
        process, end = choice
        self.say(f"{process.pid} closes {end.name}")
        self.close(process, end)

    def close(self, process: Process, end: End) -> None:
        """Checked."""
        self.expect(self.do(process, "close", end.name), None)
        self.let_go(process, end)
        self.lose(end)

    def step_give(self) -> None:
        giver = self.chance.choice(self.processes)
        takers = [process for process in self.processes if process is not giver]
        if not giver.ends or not takers:
            return
        taker = self.chance.choice(takers)
        given = self.chance.sample(giver.ends, min(len(giver.ends), self.chance.choice([1, 1, 3])))
        if self.chance.random() < 0.5:
            # What is shared stays here too.
            for end in [end for end in given if end.sends]:
                twin = End(self.name(), end.channel, True)
                self.say(f"{giver.pid} clones {end.name} as {twin.name}")
                self.expect(self.do(giver, "clone", end.name, twin.name), None)
                end.channel.senders += 1
                giver.ends.append(twin)
        self.give(giver, taker, given)

    def give(self, giver: Process, taker: Process, given: list[End]) -> None:
        """Checked."""
        given.sort(key=lambda end: not end.sends)
        names = [end.name for end in given]
        self.say(f"{giver.pid} gives {names} to {taker.pid}")
        server = self.do(taker, "offer")
        self.expect(self.do(giver, "give", server, names), None)
        self.expect(self.do(taker, "take"), None)
        for end in given:
            self.let_go(giver, end)
        self.get(taker, given)

    def step_fork(self) -> None:
        if len(self.processes) >= MOST_PROCESSES:
            return
        parent = self.chance.choice(self.processes)
        self.say(f"{parent.pid} forks")
        control, its = socket.socketpair()
        twins = [(end, End(self.name(), end.channel, True)) for end in parent.senders()]
        with its:
            names = {end.name: twin.name for end, twin in twins}
            self.tell(parent, "fork", names, self.chance.random() < 0.5, descriptors=(its.fileno(),))
            self.expect(self.answer(parent), None)
        (kind, pid), _ = actors.get(control)
        if kind != "did":
            raise ProgramError(f"the child failed: {pid}")
        child = Process(pid, control)
        self.processes.append(child)
        for _, twin in twins:
            child.ends.append(twin)
            twin.channel.senders += 1
            if parent.pid in twin.channel.mixed:
                twin.channel.mixed.add(pid)

    def step_kill(self) -> None:
        if len(self.processes) < 2 or self.chance.random() < 0.5:
            return
        victim = self.chance.choice(self.processes)
        self.say(f"{victim.pid} is killed")
        self.kill(victim)

    def kill(self, victim: Process) -> None:
        """With all that it holds."""
        os.kill(victim.pid, signal.SIGKILL)
        if not ended(victim.pidfd, TIMEOUT):
            raise ProgramError("it does not die")
        self.processes.remove(victim)
        victim.control.close()
        os.close(victim.pidfd)
        for end in victim.ends:
            self.lose(end)

    def step_fail(self) -> None:
        choice = self.held(True)
        if choice is None:
            return
        process, end = choice
        names = [other.name for other in process.ends if other is not end]
        names = self.chance.sample(names, min(len(names), 2))
        self.say(f"{process.pid} fails to send {names} by {end.name}")
        self.expect(self.do(process, "send_what_cannot_be_sent", end.name, names), None)

    def step_wait(self) -> None:
        """One process waits for a message, another sends it."""
        choice = self.held(False, lambda process, end: not end.channel.unread)
        if choice is None:
            return
        receiving, end = choice
        sending = self.held(True, lambda process, other: other.channel is end.channel and process is not receiving)
        if sending is None or self.full(sending[0], end.channel) is not False:
            return
        process, by = sending
        number = self.number()
        way = self.chance.choice(["recv", "fileno", "poll", "set", "loop"])
        self.say(f"{receiving.pid} waits on {end.name} by {way}, {process.pid} sends {number} by {by.name}")
        self.tell(receiving, "receive", end.name, way, 1, TIMEOUT)
        self.pause()
        self.expect(self.do(process, "send", by.name, number, [], 0, False, True), None)
        end.channel.unread.append(Part([[Message(number, process.pid)]]))
        came = self.answer(receiving)
        if isinstance(came, Raised):
            raise ProgramError(f"{came!r} in place of message {number}")
        self.match(receiving, end, came)

    def pause(self) -> None:
        """Nothing, or about as long as others need to begin."""
        if self.chance.random() < 0.5:
            until = time.perf_counter() + self.chance.uniform(0, 0.0005)
            while time.perf_counter() < until:
                pass

    def step_burst(self) -> None:
        """Several processes send at the same time, while the receiver receives, moves, or does nothing."""
        choice = self.held(False)
        if choice is None:
            return
        receiving, end = choice
        channel = end.channel
        senders: dict[Process, End] = {}
        for process in self.processes:
            own = [other for other in process.senders() if other.channel is channel]
            if own and process is not receiving:
                senders[process] = self.chance.choice(own)
        chosen = self.chance.sample(list(senders), min(len(senders), self.chance.choice([1, 2, 3])))
        if not chosen:
            return
        mode = self.chance.choice(["drain", "drain", "move", "kill", "stop", "nothing"])
        if channel.capacity is not None:
            mode = "drain"
        count = self.chance.choice([1, 3, 20, 60])
        if mode != "drain":
            most = self.room(channel) // len(chosen)
            first = self.numbers + 1
            while count and sum(cost(number) for number in range(first, first + count * len(chosen))) > most:
                count //= 2
        if count == 0:
            return
        rows: dict[Process, list[Message]] = {}
        begun = channel.certain()
        for process in chosen:
            first = self.number(count)
            rows[process] = [Message(number, process.pid) for number in range(first, first + count)]
        self.say(
            f"{[(process.pid, senders[process].name, row[0].number) for process, row in rows.items()]} "
            f"send {count} each to {end.name} of {receiving.pid}: {mode}"
        )
        for slot, process in enumerate(chosen):
            self.tally[slot] = 0
            self.tell(process, "burst", senders[process].name, rows[process][0].number, count, slot)
        part = Part(list(rows.values()))
        match mode:
            case "drain":
                self.tell(receiving, "drain", end.name, begun + count * len(chosen))
            case "move":
                receiving = self.move_meanwhile(receiving, end, chosen)
            case "kill":
                self.pause()
                self.kill_in_burst(part, chosen.pop(0), rows)
            case "stop":
                self.stop_in_burst(chosen)
        channel.unread.append(part)
        for process in chosen:
            self.expect(self.answer(process), count)
        if mode == "drain":
            self.match(receiving, end, self.answer(receiving))

    def move_meanwhile(self, receiving: Process, end: End, busy: list[Process]) -> Process:
        """Give a receiver to and fro while others send to it; who has it at last."""
        idle = [process for process in self.processes if process not in busy]
        for _ in range(self.chance.choice([1, 2, 5])):
            others = [process for process in idle if process is not receiving]
            if not others:
                break
            taker = self.chance.choice(others)
            self.give(receiving, taker, [end])
            receiving = taker
        return receiving

    def kill_in_burst(self, part: Part, victim: Process, rows: dict[Process, list[Message]]) -> None:
        """What it said was sent is sent, and one more may be."""
        # Its answer may be there already; nobody reads it.
        self.kill(victim)
        row = rows[victim]
        slot = part.rows.index(row)
        sent = self.tally[slot]
        del row[sent + 1 :]
        if len(row) > sent:
            part.doubtful.append(row[sent])
        self.say(f"{victim.pid} was killed after {sent}")

    def stop_in_burst(self, chosen: list[Process]) -> None:
        """One stands still wherever it is until the others are done."""
        stopped, *others = chosen
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            for process in others:
                if not select.select([process.control], [], [], TIMEOUT)[0]:
                    raise ProgramError(f"{process.pid} does not go on while {stopped.pid} stands still")
        finally:
            os.kill(stopped.pid, signal.SIGCONT)

    # The whole

    STEPS: Final = {
        "make": 12,
        "send": 30,
        "receive": 30,
        "clone": 6,
        "close": 8,
        "give": 14,
        "fork": 3,
        "kill": 3,
        "fail": 4,
        "wait": 10,
        "burst": 14,
    }

    def run(self, without: frozenset[int] = frozenset()) -> None:
        """All steps but those, and then the end of every stream."""
        kinds, weights = list(self.STEPS), list(self.STEPS.values())
        try:
            self.start()
            for index in range(self.shape.steps):
                if index in without:
                    continue
                self.chance = random.Random(f"{self.seed} {index}")
                self.said.append(f"[{index}]")
                said = len(self.said)
                while len(self.said) == said:  # some steps are not possible now
                    kind = "make" if not self.channels else self.chance.choices(kinds, weights)[0]
                    getattr(self, f"step_{kind}")()
            self.finish()
        except BaseException as error:
            error.add_note(f"seed {self.seed}, {self.shape}\n" + "\n".join(self.said[-60:]))
            raise
        finally:
            self.clean_up()

    def finish(self) -> None:
        """Close every sender; every receiver gets what is left and then the end; nobody holds anything."""
        self.said.append("[end]")
        more = True
        while more:
            more = False
            for process in self.processes:
                for end in process.senders():
                    self.close(process, end)
                    more = True
            for process in self.processes:
                for end in process.receivers():
                    way = self.chance.choice(["recv", "recv_many", "try_recv", "fileno"])
                    while not self.empty(end.channel):
                        self.receive(process, end, way)
                        more = True
        for process in self.processes:
            for end in process.receivers():
                if end.channel.senders:
                    raise ProgramError("the model has lost a sender")
                while self.receive(process, end, "recv"):
                    pass
                self.close(process, end)
            self.expect(self.do(process, "left"), [])

    def clean_up(self) -> None:
        """Whatever has happened."""
        for process in self.processes:
            process.control.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            ended(process.pidfd, TIMEOUT)
            os.close(process.pidfd)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


@dataclass(frozen=True)
class Raised:
    """That a step raised an exception with this name."""

    name: str


def cost(number: int) -> int:
    """What an unread message takes of a socket's queue."""
    size = actors.size_of(number)
    return 2000 + (size if size <= INLINE else 0)


def run_programs(first: int, count: int, shape: Shape) -> int:
    """So many programs; how many steps they had."""
    adopt_orphans()
    # What every actor would have to do first.
    import anyio._backends._asyncio  # noqa: F401

    for end in ipc.channel(actors.Parcel):
        end.close()
    before = leaks.take()
    for seed in range(first, first + count):
        Program(seed, shape).run()
    left = leaks.leaked_since(before)
    assert not left, left
    return count * shape.steps


def smallest(seed: int, shape: Shape) -> frozenset[int]:
    """The steps that a failing program can do without, by leaving out ever smaller runs of them."""
    without: frozenset[int] = frozenset()
    length = shape.steps // 2
    while length:
        for start in range(0, shape.steps, length):
            fewer = without | frozenset(range(start, min(start + length, shape.steps)))
            if fewer != without and all(_fails(seed, shape, fewer) for _ in range(2)):
                without = fewer
        length //= 2
    return without


def _fails(seed: int, shape: Shape, without: frozenset[int]) -> bool:
    try:
        Program(seed, shape).run(without)
    except AssertionError:
        return True
    return False


def main() -> None:
    """Run one program; if it fails, say the smallest part of it that does."""
    adopt_orphans()
    seed, steps = int(sys.argv[1]), int(sys.argv[2])
    options = dict.fromkeys(sys.argv[3:], True)
    shape = Shape(steps, **{"long_backlogs": True, **options})
    try:
        Program(seed, shape).run()
    except AssertionError:
        without = smallest(seed, shape)
        program = Program(seed, shape)
        with contextlib.suppress(AssertionError):
            program.run(without)
        print("\n".join(program.said))
        raise


if __name__ == "__main__":
    main()
