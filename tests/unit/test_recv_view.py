"""``recv_view``: messages of bytes channels where they lie."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

import ipc_channel as ipc

SIZES = [0, 1, 1000, 65_535, 65_536, 1_000_000, 20_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_the_view_is_the_message(size: int) -> None:
    sender, receiver = ipc.bytes_channel()
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    with sender, receiver:
        for _ in range(5):  # first through the socket, then through memory
            sender.send(content)
            with receiver.recv_view() as view:
                assert view.readonly
                assert (view.format, view.ndim, view.nbytes) == ("B", 1, size)
                assert view == content
        assert receiver.statistics().bytes == 5 * size


def test_views_that_are_held_keep_their_content_while_others_come() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        held: list[memoryview] = []
        for number in range(60):
            sender.send(bytes([number]) * 200_000)
            held.append(receiver.recv_view(20))
        for number, view in enumerate(held):
            assert view == bytes([number]) * 200_000
            view.release()


def test_a_view_outlives_both_ends() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        for number in range(3):
            sender.send(bytes([number]) * 500_000)
        views = [receiver.recv_view() for _ in range(3)]
    del sender, receiver
    gc.collect()
    assert [(view[0], view[-1]) for view in views] == [(0, 0), (1, 1), (2, 2)]


def test_it_mixes_with_recv_in_order() -> None:
    sender, receiver = ipc.bytes_channel()
    with sender, receiver:
        sender.send_many(b"%d" % number for number in range(100))
        for number in range(0, 100, 2):
            assert receiver.recv_view() == b"%d" % number
            assert receiver.recv() == b"%d" % (number + 1)


def test_it_waits_times_out_and_raises_as_recv_does() -> None:
    sender, receiver = ipc.bytes_channel()
    with receiver:
        with pytest.raises(ipc.RecvTimeout):
            receiver.recv_view(0)
        with pytest.raises(ValueError, match="timeout"):
            receiver.recv_view(-1)
        later = threading.Timer(0.02, sender.send, [b"late"])
        later.start()
        assert receiver.recv_view() == b"late"
        later.join()
        sender.close()
        with pytest.raises(ipc.Disconnected):
            receiver.recv_view()
    with pytest.raises(ipc.ClosedError):
        receiver.recv_view()


@pytest.mark.parametrize("form", [int, None], ids=["typed", "pickled"])
def test_other_channels_have_no_views_and_lose_nothing(form: Any) -> None:
    sender, receiver = ipc.channel(form) if form else ipc.channel()
    with sender, receiver:
        sender.send(7)
        with pytest.raises(TypeError, match="bytes channels"):
            receiver.recv_view()
        assert receiver.recv() == 7
