"""A send inside the encoding of a message: it arrives first, and takes no handle of the outer one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipc_channel as ipc


class Calling:
    """Calls something when it is pickled, and is unpickled as None."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def __reduce__(self) -> tuple[Any, ...]:
        self.action()
        return type(None), ()


def test_a_send_inside_serialization_arrives_first() -> None:
    sender, receiver = ipc.channel()
    with sender, receiver:
        sender.send(["outer", Calling(lambda: sender.send("inner"))])
        assert receiver.recv() == "inner"
        assert receiver.recv() == ["outer", None]


def test_a_send_inside_serialization_does_not_take_the_outer_messages_handles() -> None:
    sender, receiver = ipc.channel()
    ends = [ipc.channel() for _ in range(3)]
    with sender, receiver:
        sender.send(["outer", ends[0].sender, Calling(lambda: sender.send(["inner", ends[1].sender])), ends[2].sender])
        inner, outer = receiver.recv(), receiver.recv()
    for arrived, text in ((inner[1], "1"), (outer[1], "0"), (outer[3], "2")):
        with arrived:
            arrived.send(text)
    assert (inner[0], outer[0]) == ("inner", "outer")
    for number, (_, end) in enumerate(ends):
        with end:
            assert list(end) == [str(number)]


def test_a_typed_send_inside_a_pickled_one() -> None:
    sender, receiver = ipc.channel()
    typed, typed_receiver = ipc.channel(list[ipc.Sender[int]])
    outer_end, inner_end = ipc.channel(int), ipc.channel(int)
    with sender, receiver, typed, typed_receiver:
        sender.send([outer_end.sender, Calling(lambda: typed.send([inner_end.sender]))])
        [inner] = typed_receiver.recv()
        outer = receiver.recv()[0]
    for arrived, end, number in ((inner, inner_end.receiver, 1), (outer, outer_end.receiver, 2)):
        with arrived:
            arrived.send(number)
        with end:
            assert list(end) == [number]


class Receiving:
    """Receives from ``source`` when it is unpickled, and becomes what came."""

    source: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Receiving.receive, ()

    @staticmethod
    def receive() -> Any:
        return Receiving.source.recv()


def test_a_receive_inside_a_receive_keeps_the_handles_of_both_apart() -> None:
    sender, receiver = ipc.channel()
    inner_sender, inner_receiver = ipc.channel()
    ends = [ipc.channel() for _ in range(2)]
    Receiving.source = inner_receiver
    with sender, receiver, inner_sender, inner_receiver:
        inner_sender.send(ends[1].sender)
        sender.send([Receiving(), ends[0].sender])
        inner, outer = receiver.recv()
    for arrived, (_, end) in zip((outer, inner), ends, strict=True):
        with arrived:
            arrived.send("here")
        with end:
            assert list(end) == ["here"]
