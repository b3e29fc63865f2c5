"""What a process that waits takes of the processor."""

import asyncio
import time
from contextlib import ExitStack
from typing import Final

import ipc_channel as ipc
from ipc_channel.bench.measuring import check
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject
from ipc_channel.bench.targets import fixed
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_WAIT: Final = 10.0
_QUICK_WAIT: Final = 0.2
_WARM: Final = 2000
"""Messages before the wait: who waits has been busy."""

_WAYS: Final = ("in recv", "in select", "in an event loop")


def _blocked(effort: Effort) -> Figures:
    with ExitStack() as stack:
        controls: dict[str, Control] = {}
        senders: list[ipc.Sender[int]] = []
        for way in _WAYS:
            sender, receiver = ipc.channel(int)
            stack.enter_context(sender)
            senders.append(sender)
            with receiver:
                controls[way] = stack.enter_context(peer(_wait, receiver, way))
        for sender in senders:
            for number in range(_WARM):
                sender.send(number)
        for control in controls.values():
            check(control.recv(), "messages differ")
        # They wait side by side: none of them should do anything.
        time.sleep(_QUICK_WAIT if effort.quick else _WAIT)
        for sender in senders:
            sender.send(_WARM)
        return {way: control.recv() for way, control in controls.items()}


def _wait(control: Control, receiver: ipc.Receiver[int], way: str) -> None:
    last: object
    with receiver:
        match way:
            case "in recv":
                control.send([receiver.recv() for _ in range(_WARM)] == list(range(_WARM)))
                before = time.process_time()
                last = receiver.recv()
                used = time.process_time() - before
            case "in select":
                with ipc.ReceiverSet[int]() as receivers:
                    receivers.add(receiver, 0)
                    received: list[object] = []
                    while len(received) < _WARM:
                        received += [event.message for event in receivers.select() if isinstance(event, ipc.Received)]
                    control.send(received == list(range(_WARM)))
                    before = time.process_time()
                    (event,) = receivers.select()
                    used = time.process_time() - before
                    last = event.message if isinstance(event, ipc.Received) else None
            case _:
                used, last = asyncio.run(_wait_in_loop(control, receiver))
        check(last == _WARM, "another message came")
        control.send(used)


async def _wait_in_loop(control: Control, receiver: ipc.Receiver[int]) -> tuple[float, int]:
    control.send([await receiver.arecv() for _ in range(_WARM)] == list(range(_WARM)))
    before = time.process_time()
    last = await receiver.arecv()
    return time.process_time() - before, last


SUBJECTS: Final = (
    Subject(
        key="blocked",
        name="processor time of a process blocked for 10 s",
        family="Waiting",
        what="After 2,000 messages the receiver waits for 10 s for the next one: what its process, all of its threads"
        " together, has used until it has it. The wake-up is included.",
        metrics=[Metric(way, Unit.TIME) for way in _WAYS],
        measures={OURS: _blocked},
        targets=[fixed(way, 1e-3, Unit.TIME) for way in _WAYS],
        most_rounds=2,
    ),
)
