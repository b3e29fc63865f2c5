"""Processes that are killed at any moment, again and again, in a process that forks quickly.

Apart from the tests, so that this process need not import pytest. Every function returns numbers that show that
its kills met something, and raises when a promise is broken.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec import Struct

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, start_as_child, warm_up
from tests.lanes.stepping import Stepped
from tests.lanes.tally import Tally
from tests.lanes.traffic import LARGE, MIDDLE, SMALL, Ledger, Note, note, payload, random_size, send_with_handles
from tests.support import leaks

VICTIM: Final = 0
HONEST: Final = 1


class Moving(Struct):
    """A receiver on its way."""

    receiver: ipc.Receiver[Note]


@contextlib.contextmanager
def child(main: Callable[[], object], keep: list[Any]) -> Iterator[int]:
    """A child that runs ``main``; killed, if need be, and reaped at the end of the block."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            start_as_child()
            ipc.close_inherited(keep=keep)
            main()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        kill(pid)


def kill(pid: int) -> None:
    """Kill and reap, unless that has been done."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """This process holds no more at the end of the block than before."""
    warm_up()
    before = leaks.take()
    yield
    left = leaks.leaked_since(before)
    assert not left, "left behind:\n" + "\n".join(left)


# What the victims do. Each function is called with a sender and a number, and sends the message of that number.


def _small(sender: Any, number: int) -> None:
    sender.send(note(VICTIM, number))


def _every_size(sender: Any, number: int) -> None:
    sender.send(note(VICTIM, number, random_size(random.Random(number))))


def _large(sender: Any, number: int) -> None:
    sender.send(note(VICTIM, number, (65_537, 200_000, 1 << 20)[number % 3]))


def _handles(sender: Any, number: int) -> None:
    send_with_handles(sender, note(VICTIM, number), number % 3, (number + 1) % 2)


def _many_handles(sender: Any, number: int) -> None:
    send_with_handles(sender, note(VICTIM, number, (64, 100_000)[number % 2]), (1, 300)[number % 2])


def _everything(sender: Any, number: int) -> None:
    chance = random.Random(number)
    files = chance.choice([1, 2, 260]) if chance.random() < 0.1 else 0
    send_with_handles(sender, note(VICTIM, number, random_size(chance, (*SMALL, *MIDDLE, *LARGE))), files)


def _by_clones(sender: Any, number: int) -> None:
    with sender.clone() as clone:
        clone.send(note(VICTIM, number))


SENDS: Final[dict[str, Callable[[Any, int], None]]] = {
    "small": _small,
    "every size": _every_size,
    "large": _large,
    "handles": _handles,
    "many handles": _many_handles,
    "everything": _everything,
    "clones": _by_clones,
}

SLOW: Final = {"large", "many handles", "everything"}
"""Ways that take so long for a message that their victims are killed after few."""

READING: Final = ("meanwhile", "at the end")
"""When the messages of a victim are received."""


def _send_without_end(sender: Any, send: Callable[[Any, int], None], sent: Tally, most: int) -> None:
    number = 0
    while number < most:
        send(sender, number)
        number += 1
        sent[VICTIM] = number
    signal.pause()


def kill_senders(
    what: str, reading: str, rounds: int, seed: int, shared: bool = False, capacity: int | None = None
) -> dict[str, int]:
    """Kill a sending process at a random moment; what it said was sent arrives, then at most one more, then the end.

    With ``shared`` an honest process sends at the same time, and is not disturbed.
    """
    chance = random.Random(seed)
    messages = unsaid = silent = 0
    with nothing_left():
        for number in range(rounds):
            try:
                sent, came = _kill_a_sender(chance, what, reading == "meanwhile", shared, capacity)
            except BaseException as error:
                error.add_note(f"in round {number} of kill_senders({what!r}, {reading!r}, seed={seed}, {shared=})")
                raise
            messages += came
            unsaid += came > sent
            silent += came == 0
    return {"messages": messages, "unsaid": unsaid, "silent": silent}


def _kill_a_sender(
    chance: random.Random, what: str, meanwhile: bool, shared: bool, capacity: int | None
) -> tuple[int, int]:
    send = SENDS[what]
    sent = Tally(2)
    # A victim that is faster than its reader must not fill the memory before it is killed.
    most = 60 if what in SLOW else 20_000
    ends = ipc.channel(Note) if capacity is None else ipc.channel(Note, capacity=capacity)
    ledger = Ledger()
    with ends.receiver as receiver, ends.sender as sender, contextlib.ExitStack() as stack:
        victim = stack.enter_context(child(lambda: _send_without_end(sender, send, sent, most), [sender]))
        if shared:
            stack.enter_context(child(lambda: _send_honestly(sender, sent), [sender]))
        sender.close()
        # Half of them early, where senders become busy; from some message on, and then a moment later.
        least = chance.choice([0, 1, 2, 5] if what in SLOW else [0, 1, 2, 5, 20, 100, 270])
        moment = chance.choice([0, 0, chance.uniform(0, 0.0002), chance.uniform(0, 0.002)])
        deadline = time.monotonic() + TIMEOUT
        while sent[VICTIM] < least and time.monotonic() < deadline:
            if not meanwhile:
                # Some ways fill a socket with fewer messages than that; then this is the moment.
                if time.monotonic() > deadline - TIMEOUT + 0.02:
                    break
                os.sched_yield()
                continue
            with contextlib.suppress(ipc.Empty):
                ledger.enter_all(receiver.recv_many(1 if what in SLOW else chance.choice([1, 5, 50]), 0))
        until = time.monotonic() + moment
        while time.monotonic() < until:
            if meanwhile:
                with contextlib.suppress(ipc.Empty):
                    ledger.enter(receiver.try_recv())
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        said = sent[VICTIM]
        ledger.enter_all(receiver)
        assert ledger.next[HONEST] == (150 if shared else 0), f"of the honest sender {ledger.next[HONEST]} came"
    came = ledger.next[VICTIM]
    assert said <= came <= said + 1, f"{said} were sent, {came} came"
    return said, came


def _send_honestly(sender: ipc.Sender[Note], sent: Tally) -> None:
    for number in range(150):
        send_with_handles(sender, note(HONEST, number, (64, 70_000)[number % 10 == 0]), number % 7 == 0)
        sent[HONEST] = number + 1


# At every system call


def _send_a_few(sender: Any, send: Callable[[Any, int], None], count: int, sent: Tally) -> None:
    for number in range(count):
        send(sender, number)
        sent[VICTIM] = number + 1


def kill_senders_at_system_calls(what: str, count: int, shared: bool, every: int = 1) -> dict[str, int]:
    """Kill a sending process before and after each of its system calls, or each ``every``-th; as ``kill_senders``."""
    kills = messages = 0
    with nothing_left():
        while True:
            finished, came = _kill_at(what, count, shared, lambda victim, at=kills * every: victim.system_calls(at + 1))
            messages += came
            if finished:
                assert came == count, f"{came} of {count} came from a process that was not killed"
                return {"kills": kills, "messages": messages}
            kills += 1


def kill_senders_at_instructions(size: int, count: int, shared: bool, kills: int, seed: int) -> dict[str, int]:
    """Kill a process at random instructions of its sends of so many bytes; as ``kill_senders``."""
    chance = random.Random(seed)
    messages = finished = 0
    with nothing_left():
        for _ in range(kills):
            calls, at = chance.randrange(2 * count), chance.randrange(1500)
            try:
                ended, came = _kill_a_sender_of_bytes(size, count, shared, calls, at)
            except BaseException as error:
                error.add_note(f"at instruction {at} after {calls} system calls, {size=}, {shared=}")
                raise
            finished += ended
            messages += came
    return {"messages": messages, "finished": finished}


def _kill_a_sender_of_bytes(size: int, count: int, shared: bool, calls: int, at: int) -> tuple[bool, int]:
    contents = [payload(VICTIM, number, size) for number in range(count)]
    sent = Tally()
    sender, receiver = ipc.bytes_channel()

    def body() -> None:
        for number, content in enumerate(contents):
            os.getppid()  # a system call to count by, as sends need not make any
            sender.send(content)
            sent[0] = number + 1

    came = 0
    honest = b"sent beside a process that stands still"
    with receiver, sender:
        with Stepped(lambda: ipc.close_inherited(keep=[sender]), body) as victim:
            if not shared:
                sender.close()
            finished = not (victim.system_calls(2 * calls + 1) and victim.instructions(at))
            if shared:
                sender.send(honest)
                while (message := receiver.recv(TIMEOUT)) != honest:
                    assert message == contents[came]
                    came += 1
        sender.close()
        for message in receiver:
            assert message == contents[came]
            came += 1
    assert sent[0] <= came <= sent[0] + 1, f"{sent[0]} were sent, {came} came"
    return finished, came


def _kill_at(what: str, count: int, shared: bool, advance: Callable[[Stepped], bool]) -> tuple[bool, int]:
    """Whether the victim ended by itself, and how many of its messages came."""
    sent = Tally(2)
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender:
        with Stepped(
            lambda: ipc.close_inherited(keep=[sender]), lambda: _send_a_few(sender, SENDS[what], count, sent)
        ) as victim:
            if not shared:
                sender.close()
            finished = not advance(victim)
            if shared:
                # While the victim stands still wherever it is, others send and are received.
                for number in range(3):
                    sender.send(note(HONEST, number))
                while ledger.next[HONEST] < 3:
                    ledger.enter(receiver.recv(TIMEOUT))
        sender.close()
        said = sent[VICTIM]
        ledger.enter_all(receiver)
    came = ledger.next[VICTIM]
    assert said <= came <= said + 1, f"{said} were sent, {came} came"
    if finished:
        assert victim.code == 0, f"the victim failed: {victim.code}"
    return finished, came


def kill_sharers_at_system_calls() -> dict[str, int]:
    """Kill a process before and after each of its system calls while it shares its sender with others.

    Whoever has got the sender by then goes on with it.
    """
    kills = arrived = 0
    with nothing_left():
        while True:
            sent = Tally()
            sender, receiver = ipc.channel(Note)
            carrier, carried = ipc.channel(ipc.Sender[Note])

            def body(sender: Any = sender, carrier: Any = carrier, sent: Tally = sent) -> None:
                with sender, carrier:
                    for number in range(6):
                        sender.send(note(VICTIM, number))
                        sent[0] = number + 1
                        if number in (1, 3):
                            carrier.send(sender.clone())

            with receiver, carried:
                with Stepped(lambda keep=(sender, carrier): ipc.close_inherited(keep=keep), body) as victim:
                    sender.close()
                    carrier.close()
                    finished = not victim.system_calls(kills + 1)
                shared = list(carried)
                for number, clone in enumerate(shared):
                    with clone:
                        clone.send(note(HONEST, number))
                ledger = Ledger()
                ledger.enter_all(receiver)
                assert ledger.next[HONEST] == len(shared)
                assert sent[0] <= ledger.next[VICTIM] <= sent[0] + 1
            arrived += len(shared)
            if finished:
                assert victim.code == 0
                assert len(shared) == 2
                return {"kills": kills, "arrived": arrived}
            kills += 1


def kill_movers_at_system_calls() -> dict[str, int]:
    """Kill a process before and after each of its system calls while it receives, and passes the receiver on."""
    kills = arrived = 0
    with nothing_left():
        while True:
            counted = Tally()
            sender, receiver = ipc.channel(Note)
            on, arrivals = ipc.channel(Moving)

            def body(receiver: Any = receiver, on: Any = on, counted: Tally = counted) -> None:
                with on:
                    ledger = Ledger()
                    for _ in range(3):
                        ledger.enter(receiver.recv(TIMEOUT))
                        counted[0] += 1
                    on.send(Moving(receiver))

            with sender, arrivals, receiver, on:
                with Stepped(lambda keep=(receiver, on): ipc.close_inherited(keep=keep), body) as victim:
                    for end in (receiver, on):
                        end.close()
                    for number in range(20):
                        message = note(VICTIM, number, 70_000 if number % 8 == 5 else 64)
                        send_with_handles(sender, message, number % 4 == 0)
                    finished = not victim.system_calls(kills + 1)
                try:
                    with arrivals.recv(TIMEOUT).receiver as moved:
                        arrived += 1
                        sender.send(note(VICTIM, 20))
                        sender.close()
                        ledger = Ledger()
                        ledger.next[VICTIM] = counted[0]
                        ledger.enter_all(moved)
                        assert ledger.next[VICTIM] == 21
                except ipc.Disconnected:
                    assert not finished
                    wait_until_gone(sender)
            if finished:
                assert victim.code == 0
                return {"kills": kills, "arrived": arrived}
            kills += 1


def wait_until_gone(sender: ipc.Sender[Note]) -> None:
    """Send until the sender is told that its receiver is gone."""
    deadline = time.monotonic() + TIMEOUT
    with contextlib.suppress(ipc.ReceiverGone):
        while time.monotonic() < deadline:
            sender.send(note(VICTIM, 0))
        raise AssertionError("the receiver is gone, and its sender is not told")


# Receivers


def _receive_without_end(receiver: ipc.Receiver[Note], received: Tally) -> None:
    ledger = Ledger()
    while True:
        ledger.enter(receiver.recv())
        received[0] += 1


def kill_receivers(what: str, rounds: int, seed: int, capacity: int | None = None) -> dict[str, int]:
    """Kill a receiving process at a random moment while this one sends: ``ReceiverGone``, be it from a wait or not."""
    chance = random.Random(seed)
    messages = 0
    with nothing_left():
        for number in range(rounds):
            received = Tally()
            ends = ipc.channel(Note) if capacity is None else ipc.channel(Note, capacity=capacity)
            try:
                with (
                    ends.sender as sender,
                    ends.receiver as receiver,
                    child(lambda: _receive_without_end(receiver, received), [receiver]) as victim,  # noqa: B023
                ):
                    receiver.close()
                    messages += _send_until_gone(sender, what, chance, victim)
            except BaseException as error:
                error.add_note(f"in round {number} of kill_receivers({what!r}, seed={seed}, {capacity=})")
                raise
    return {"messages": messages}


def _send_until_gone(sender: Any, what: str, chance: random.Random, victim: int) -> int:
    kill_at = chance.choice([1, 5, 20] if what in SLOW else [1, 5, 50, 300, 1000])
    number = 0
    deadline = time.monotonic() + TIMEOUT
    try:
        while time.monotonic() < deadline:
            if number == kill_at:
                # It may be anywhere: in the middle of a message, asleep, or far behind.
                os.kill(victim, signal.SIGKILL)
            SENDS[what](sender, number)
            number += 1
    except ipc.ReceiverGone:
        assert number >= kill_at, "the receiver was alive"
        return number
    raise AssertionError(f"the receiver was killed, and {number} messages were sent")


def _pass_a_receiver_on(mailbox: ipc.Receiver[Moving], on: ipc.Sender[Moving], read: int, counted: Tally) -> None:
    receiver = mailbox.recv(TIMEOUT).receiver
    ledger = Ledger()
    for _ in range(read):
        ledger.enter(receiver.recv(TIMEOUT))
        counted[0] += 1
    on.send(Moving(receiver))


def kill_movers(rounds: int, seed: int) -> dict[str, int]:
    """Kill a process through which a receiver moves, while another sends.

    The receiver arrives with everything that was not delivered in the killed process, or it is gone and its sender
    is told.
    """
    chance = random.Random(seed)
    arrived = gone = 0
    with nothing_left():
        for number in range(rounds):
            try:
                if _kill_a_mover(chance):
                    arrived += 1
                else:
                    gone += 1
            except BaseException as error:
                error.add_note(f"in round {number} of kill_movers(seed={seed})")
                raise
    return {"arrived": arrived, "gone": gone}


def _send_until_the_receiver_is_gone(sender: ipc.Sender[Note], sent: Tally, stop: Tally) -> None:
    number = 0
    while not stop[0]:
        try:
            send_with_handles(sender, note(VICTIM, number, (64, 70_000)[number % 20 == 0]), number % 16 == 0)
        except ipc.ReceiverGone:
            sent[1] = 1
            return
        number += 1
        sent[0] = number
        if number > 500:
            os.sched_yield()


def _kill_a_mover(chance: random.Random) -> bool:
    sent, stop, counted = Tally(2), Tally(), Tally()
    sender, receiver = ipc.channel(Note)
    there, mailbox = ipc.channel(Moving)
    on, arrivals = ipc.channel(Moving)
    read = chance.choice([0, 0, 1, 20])
    with contextlib.ExitStack() as stack:
        for end in (there, mailbox, on, arrivals, receiver, sender):
            stack.enter_context(end)
        honest = stack.enter_context(child(lambda: _send_until_the_receiver_is_gone(sender, sent, stop), [sender]))
        victim = stack.enter_context(child(lambda: _pass_a_receiver_on(mailbox, on, read, counted), [mailbox, on]))
        for end in (sender, mailbox, on):
            end.close()
        if chance.random() < 0.5:
            sent.wait(0, chance.choice([1, 50, 150]))
        there.send(Moving(receiver))
        until = time.monotonic() + chance.uniform(0, 0.0025)
        while time.monotonic() < until:
            pass
        kill(victim)
        there.close()
        try:
            with arrivals.recv(TIMEOUT).receiver as receiver:
                ledger = Ledger()
                ledger.next[VICTIM] = counted[0]
                stop[0] = 1
                ledger.enter_all(receiver)
                os.waitpid(honest, 0)
                assert ledger.next[VICTIM] == sent[0], f"{sent[0]} were sent, {ledger.next[VICTIM]} came"
                return True
        except ipc.Disconnected:
            # In the message that was never received, or in the process: gone, and the sender notices.
            sent.wait(1, 1)
            return False
