"""At the limit on open files: an error that says so, nothing lost, and everything goes on."""

from __future__ import annotations

import pytest

import ipc_channel as ipc
from ipc_channel.rust import u64
from tests.faults.scarcity import descriptors_left
from tests.rust import commands as c
from tests.rust.commands import Parcel
from tests.rust.peers import TIMEOUT, Peer
from tests.rust.test_ends import FRAGMENTED, closing, senders


@pytest.mark.parametrize("content", [0, 300_000], ids=["one packet", "fragmented"])
@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_message_with_more_handles_than_fit_stays(peer: Peer, content: int, left: int) -> None:
    to, parcels = peer.channel(Parcel)
    seen, numbers = peer.channel(u64)
    with parcels, numbers:
        peer.tell(c.Make(c.Recipe(content, senders=5, receivers=5), to, seen))
        with descriptors_left(left):
            for _ in range(3):
                with pytest.raises(ipc.TooManyHandles):
                    parcels.recv(TIMEOUT)
        parcel = parcels.recv(TIMEOUT)
        with closing(parcel.ends()):
            assert len(parcel.content) == content
            for number, sender in enumerate(parcel.senders):
                with sender:
                    sender.send(number)
            assert [list(receiver) for receiver in parcel.receivers] == [[7, 8, 9]] * 5
        assert list(numbers) == list(range(5))


@pytest.mark.parametrize("count", [0, 5])
def test_a_large_message_that_cannot_be_sent_now(peer: Peer, count: int) -> None:
    """Cutting it needs two descriptors. It is sent later, or it is refused and its ends are as before."""
    with peer.loop(c.LoopParcel, Parcel) as loop:
        ends, receivers = senders(peer, count)
        parcel = Parcel(1, FRAGMENTED, senders=list(ends))
        with closing(receivers), closing(ends):
            with descriptors_left(0):
                try:
                    loop.there.send(parcel)
                except ipc.TooManyHandles:
                    assert not any(end.closed for end in ends)
                    sent = False
                else:
                    sent = True
            if not sent:
                loop.there.send(parcel)
            returned = loop.back.recv(TIMEOUT)
            with closing(returned.ends()):
                assert returned.content == FRAGMENTED
                assert len(returned.senders) == count
            assert loop.turn(Parcel(2)).number == 2


def test_channels_cannot_be_made(peer: Peer) -> None:
    with descriptors_left(1), pytest.raises(ipc.TooManyHandles):
        peer.channel(u64)
    with peer.loop(c.LoopBytes) as loop:
        assert loop.turn(b"goes on") == b"goes on"
