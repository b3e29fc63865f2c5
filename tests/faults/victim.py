"""A receiver under attack."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

import ipc_channel as ipc
from tests.faults.forging import honest
from tests.support.packets import send_packet


@dataclass
class Victim:
    """A receiver of bytes whose peer is hostile."""

    receiver: ipc.BytesReceiver
    raw: socket.socket
    """What is sent on it reaches the receiver as it is."""

    def refuses(self, packet: bytes, descriptors: tuple[int, ...] | list[int] = ()) -> str:
        """The packet is a ProtocolError and the next message arrives. Returns what the error said."""
        send_packet(self.raw, packet, descriptors)
        send_packet(self.raw, honest(b"the next one"))
        with pytest.raises(ipc.ProtocolError) as caught:
            self.receiver.recv(20)
        assert self.receiver.recv(20) == b"the next one"
        with pytest.raises(ipc.Empty):
            self.receiver.try_recv()
        return str(caught.value)
