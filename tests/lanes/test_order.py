"""What one process sends arrives as it was sent; what was sent before another's send began arrives before it.

The second is checked by causality: a token goes round, and whoever has it sends before it passes the token on.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from typing import Any

import pytest
from msgspec import Struct

import ipc_channel as ipc
from tests.lanes.processes import TIMEOUT, Process
from tests.lanes.relay import NOISE, TOKENS, TRAFFIC, Traffic, relay
from tests.lanes.tally import Tally
from tests.lanes.traffic import (
    LARGE,
    MIDDLE,
    SMALL,
    WAYS,
    Ledger,
    Note,
    note,
    random_size,
    send_with_handles,
)

# A thread of another test may be on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


# Of each sender


def _send_all(source: int, count: int, sender: ipc.Sender[Note]) -> None:
    chance = random.Random(source)
    with sender:
        for number in range(count):
            message = note(source, number, random_size(chance))
            files = chance.choice([1, 2, 280]) if chance.random() < 0.01 else 0
            send_with_handles(sender, message, files)


@pytest.mark.parametrize("way", WAYS)
def test_each_of_four_processes_in_its_order(way: str) -> None:
    """Broken by sizes or handles that take different ways and overtake each other."""
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        stack.enter_context(receiver)
        with sender:
            children = [stack.enter_context(Process(_send_all, source, 400, sender)) for source in range(4)]
        WAYS[way](receiver, ledger.enter)
        for child in children:
            child.result()
    assert ledger.next == dict.fromkeys(range(4), 400)


def test_threads_and_clones_of_one_process_are_one_order() -> None:
    """Broken by a lane for each clone or thread whose messages are merged in another order than they were sent."""
    sender, receiver = ipc.channel(Note)
    clones = [sender, *(sender.clone() for _ in range(3))]
    turn = Tally()
    errors: list[BaseException] = []

    def run(own: int) -> None:
        chance = random.Random(own)
        try:
            for number in range(own, 4000, 4):
                turn.wait(0, number)
                clones[chance.randrange(4)].send(note(0, number, random_size(chance)))
                turn[0] = number + 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[own]) for own in range(4)]
    ledger = Ledger()
    with receiver:
        for thread in threads:
            thread.start()
        for _ in range(4000):
            ledger.enter(receiver.recv(TIMEOUT))
        for thread in threads:
            thread.join()
        for clone in clones:
            clone.close()
        assert list(receiver) == []
    assert not errors


# Across senders


@pytest.mark.parametrize("traffic", TRAFFIC)
@pytest.mark.parametrize("token", TOKENS)
def test_a_message_sent_before_another_was_begun_comes_first(token: str, traffic: str) -> None:
    """Broken by a batch that is delivered before everything older was looked for, or not merged by its stamps."""
    turns = {"1 MiB": 100, "everything": 200}.get(traffic, 600)
    ledger = Ledger()
    with relay(token, TRAFFIC[traffic], processes=3, turns=turns, seed=1) as (receiver, finish):
        WAYS["recv"](receiver, ledger.enter)
        finish(ledger)


@pytest.mark.parametrize("way", WAYS)
def test_by_every_way_of_receiving(way: str) -> None:
    """Broken by a way of receiving that looks at one source before another."""
    ledger = Ledger()
    with relay("memory", TRAFFIC["everything"], processes=2, turns=150, seed=2) as (receiver, finish):
        WAYS[way](receiver, ledger.enter)
        finish(ledger)


@pytest.mark.parametrize("seed", range(4))
def test_a_receiver_that_sleeps_and_wakes(seed: int) -> None:
    """Broken by a message that wakes the receiver and so overtakes an older one of a lane that was awake already."""
    chance = random.Random(seed)
    ledger = Ledger()
    with relay("pipe", Traffic(noise=2), processes=3, turns=900, seed=seed) as (receiver, finish):
        with contextlib.suppress(ipc.Disconnected):
            while True:
                # It looks at times, is away at times, and waits at times.
                match chance.randrange(4):
                    case 0:
                        ledger.enter_all(receiver.recv_many(timeout=TIMEOUT))
                    case 1:
                        with contextlib.suppress(ipc.Empty):
                            ledger.enter(receiver.try_recv())
                    case 2:
                        receiver.poll(chance.uniform(0, 0.0005))
                    case _:
                        ledger.enter(receiver.recv(TIMEOUT))
        finish(ledger)


def _cold(turn: int, sender: ipc.Sender[Note]) -> None:
    with sender:
        send_with_handles(sender, note(0, turn, 70_000 if turn % 9 == 0 else 64), files=turn % 7 == 0)


def _busy(sender: ipc.Sender[Note], turn: Tally, turns: int, noise: int) -> None:
    with sender:
        made = 0
        for number in range(1, turns, 2):
            while turn[0] < number:
                if made < noise:
                    sender.send(note(NOISE, made))
                    made += 1
                else:
                    os.sched_yield()
            sender.send(note(0, number))
            turn[0] = number + 1


@pytest.mark.parametrize("live", [True, False], ids=["read meanwhile", "read at the end"])
def test_processes_that_send_once_and_one_that_is_busy(live: bool) -> None:
    """Broken by a first message through a socket that is looked at after, or long before, the busy ones' rings."""
    turns = 100
    turn = Tally()
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver, sender, contextlib.ExitStack() as stack:
        busy = stack.enter_context(Process(_busy, sender, turn, turns, 3000 if live else 30))
        for number in range(0, turns, 2):
            turn.wait(0, number)
            with Process(_cold, number, sender, checked=False) as cold:
                while live and cold.running:
                    with contextlib.suppress(ipc.RecvTimeout):
                        ledger.enter_all(receiver.recv_many(timeout=0.001))
                cold.result()
            turn[0] = number + 1
            while live and turn[0] == number + 1:
                with contextlib.suppress(ipc.RecvTimeout):
                    ledger.enter_all(receiver.recv_many(timeout=0.001))
        sender.close()
        WAYS["recv_many"](receiver, ledger.enter)
        busy.result()
    assert ledger.next[0] == turns


def _chain(sender: ipc.Sender[Note], number: int, last: int) -> None:
    """Sends, and lets a child of its own send next, while it lives on."""
    with sender:
        sender.send(note(0, number))
        if number < last:
            with Process(_chain, sender, number + 1, last) as child:
                child.result()
        sender.send(note(0, 2 * last + 1 - number))


def test_a_chain_of_forks_there_and_back() -> None:
    """Broken by a child that goes on with its parent's lane, or whose first message is stamped by another clock."""
    last = 25
    sender, receiver = ipc.channel(Note)
    ledger = Ledger()
    with receiver:
        with sender:
            child: Process[None] = Process(_chain, sender, 0, last)
        with child:
            WAYS["recv"](receiver, ledger.enter)
            child.result()
    assert ledger.next[0] == 2 * last + 2


# Senders that move


class Baton(Struct):
    """A sender that is handed on, and the number of the next message."""

    number: int
    sender: ipc.Sender[Note]


def _pass_batons(
    own: int, keep: bool, last: int, mailbox: ipc.Receiver[Baton], following: ipc.Sender[Baton], seed: int
) -> None:
    chance = random.Random(seed * 10 + own)
    kept: ipc.Sender[Note] | None = None
    noise = 0
    with mailbox, following, contextlib.ExitStack() as stack:
        for baton in mailbox:
            if kept is None and keep:
                kept = stack.enter_context(baton.sender.clone())
            number = baton.number
            for _ in range(chance.choice([0, 1, 2, 60])):
                if kept is not None and chance.random() < 0.3:
                    kept.send(note(NOISE + own, noise))
                    noise += 1
                baton.sender.send(note(0, number, random_size(chance)))
                number += 1
            if number >= last:
                baton.sender.close()
                return
            with contextlib.suppress(ipc.ReceiverGone):
                following.send(Baton(number, baton.sender))
            assert baton.sender.closed


@pytest.mark.parametrize("keep", [False, True], ids=["one holder at a time", "some keep a clone"])
@pytest.mark.parametrize("seed", range(3))
def test_a_sender_that_moves_from_process_to_process(keep: bool, seed: int) -> None:
    """Broken by a new owner whose first messages go by the socket past what is left in the old owner's ring."""
    sender, receiver = ipc.channel(Note)
    mailboxes = [ipc.channel(Baton) for _ in range(3)]
    ledger = Ledger()
    with receiver, contextlib.ExitStack() as stack:
        children = []
        for own in range(3):
            arguments = (own, keep, 3000, mailboxes[own].receiver, mailboxes[(own + 1) % 3].sender, seed)
            children.append(stack.enter_context(Process(_pass_batons, *arguments)))
        mailboxes[0].sender.send(Baton(0, sender))
        assert sender.closed
        for each in mailboxes:
            each.sender.close()
            each.receiver.close()
        WAYS["recv"](receiver, ledger.enter)
        for child in children:
            child.result()
    assert ledger.next[0] >= 3000


# Receivers that move


class Basket(Struct):
    """A receiver that is handed on, and what has come so far."""

    receiver: ipc.Receiver[Note]
    next: dict[int, int]


def _pass_receivers(
    mailbox: ipc.Receiver[Basket], other: ipc.Sender[Basket], seed: int, watched: bool
) -> tuple[dict[int, int], int] | None:
    """Receive some and hand the receiver on, until it has ended; then, what came and how often it was here."""
    chance = random.Random(seed)
    visits = 0
    with mailbox, other:
        for basket in mailbox:
            visits += 1
            ledger = Ledger()
            ledger.next.update(basket.next)
            receiver = basket.receiver
            if watched:
                receiver.fileno()
            try:
                for _ in range(chance.choice([0, 1, 2, 50, 300])):
                    match chance.randrange(3):
                        case 0:
                            ledger.enter(receiver.recv(TIMEOUT))
                        case 1:
                            ledger.enter_all(receiver.recv_many(5, TIMEOUT))
                        case _:
                            with contextlib.suppress(ipc.Empty):
                                ledger.enter(receiver.try_recv())
            except ipc.Disconnected:
                receiver.close()
                return dict(ledger.next), visits
            other.send(Basket(receiver, dict(ledger.next)))
            assert receiver.closed
    return None


@pytest.mark.parametrize("watched", [False, True], ids=["", "after fileno"])
@pytest.mark.parametrize("traffic", ["small", "noise", "everything"])
@pytest.mark.parametrize("seed", range(2))
def test_a_receiver_that_moves_to_and_fro_between_processes(seed: int, traffic: str, watched: bool) -> None:
    """Broken by residue that is lost, comes twice, or is delivered after what was sent to the new owner."""
    turns = 200 if traffic == "everything" else 1000
    there, mailbox_there = ipc.channel(Basket)
    back, mailbox_back = ipc.channel(Basket)
    with contextlib.ExitStack() as stack:
        movers: list[Process[Any]] = []
        for mailbox, other in ((mailbox_there, back), (mailbox_back, there)):
            movers.append(stack.enter_context(Process(_pass_receivers, mailbox, other, seed + len(movers), watched)))
        with relay("memory", TRAFFIC[traffic], processes=2, turns=turns, seed=seed) as (receiver, finish):
            there.send(Basket(receiver, {}))
            for end in (there, mailbox_there, back, mailbox_back):
                end.close()
            results = [mover.result() for mover in movers]
            [(came, _)] = [result for result in results if result is not None]
            ledger = Ledger()
            ledger.next.update(came)
            finish(ledger)


def test_a_receiver_that_moves_within_the_process_at_every_message() -> None:
    """Broken by a new owner that reads what is new before the residue, or by residue of residue."""
    carrier, carried = ipc.channel(Basket)
    ledger = Ledger()
    with carrier, carried, relay("memory", Traffic(noise=3), processes=2, turns=400, seed=3) as (receiver, finish):
        with contextlib.suppress(ipc.Disconnected):
            while True:
                ledger.enter(receiver.recv(TIMEOUT))
                carrier.send(Basket(receiver, {}))
                receiver = carried.recv(TIMEOUT).receiver
        receiver.close()
        finish(ledger)


# Long backlogs


def test_a_long_backlog_of_two_processes() -> None:
    """Broken by order that holds only within what a batch can see, or by rings that were left for bigger ones."""
    ledger = Ledger()
    with relay("memory", Traffic((64, 70_000), noise=20), processes=2, turns=6000, seed=4) as (receiver, finish):
        waiting = Ledger()
        waiting.next[0] = 6000
        finish(waiting)  # every process has ended, and nothing has been read
        WAYS["recv"](receiver, ledger.enter)
        finish(ledger)


def test_a_backlog_of_few_messages_of_two_processes() -> None:
    """Broken by a first look that takes the sources one after the other."""
    for seed in range(10):
        ledger = Ledger()
        with relay("memory", Traffic(noise=2), processes=2, turns=60, seed=seed) as (receiver, finish):
            waiting = Ledger()
            waiting.next[0] = 60
            finish(waiting)
            WAYS["recv_many"](receiver, ledger.enter)
            finish(ledger)


# Many seeds


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("token", TOKENS)
def test_many_relays(token: str) -> None:
    """Broken as the tests above, by interleavings that are rarer."""
    base = random.SystemRandom().randrange(1 << 30)
    for seed in range(base, base + 100):
        chance = random.Random(seed)
        traffic = Traffic(
            chance.choice([(64,), (*SMALL, *MIDDLE, *LARGE)]), chance.random() < 0.5, chance.choice([0, 2, 50])
        )
        processes = chance.randint(2, 4)
        way = chance.choice(list(WAYS))
        ledger = Ledger()
        said = f"seed {seed}: {token}, {traffic}, {processes} processes, {way}"
        try:
            with relay(token, traffic, processes=processes, turns=3000, seed=seed) as (receiver, finish):
                WAYS[way](receiver, ledger.enter)
                finish(ledger)
        except BaseException as error:
            error.add_note(said)
            raise
