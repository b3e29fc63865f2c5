"""A file of a FUSE server that does not answer: nobody asks it anything, and nobody waits for its close."""

from __future__ import annotations

import os

import pytest

import ipc_channel as ipc
from tests.faults.forging import BODY_IN_FILE, FILE, MEMORY, RECEIVER, SENDER, header, with_handles
from tests.faults.fuse import LIFE, UnavailableError, hung_file
from tests.support.packets import send_packet, socket_of
from tests.support.start_methods import run

PACKETS = {
    "garbage": (b"garbage", ipc.ProtocolError),
    "a sender": (with_handles([SENDER]), ipc.ProtocolError),
    "a receiver": (with_handles([RECEIVER]), ipc.ProtocolError),
    "shared memory": (with_handles([MEMORY]), ipc.ProtocolError),
    "a body": (header(flags=BODY_IN_FILE, payload=4096, body=4096), ipc.ProtocolError),
    "a chain": (with_handles([FILE] * 300, chains=1), ipc.ProtocolError),
    "a file in a message that has no place for it": (with_handles([FILE]), ipc.DecodeError),
}


def _receive(packet: bytes, error: type[Exception]) -> str | None:
    sender, receiver = ipc.bytes_channel()
    try:
        with sender, receiver, socket_of(sender) as raw, hung_file() as hung:
            file = os.open(hung.path, os.O_RDONLY | os.O_CLOEXEC)
            send_packet(raw, packet, [file])
            os.close(file)
            sender.send(b"next")
            hung.hang()
            with pytest.raises(error):
                receiver.recv(20)
            assert receiver.recv(20) == b"next"
            assert hung.alive, "somebody waited until the server had ended"
    except UnavailableError as unavailable:
        return str(unavailable)
    return None


@pytest.mark.parametrize("what", PACKETS)
def test_a_hung_file_taken_for(what: str) -> None:
    unavailable = run("fork", _receive, *PACKETS[what], timeout=2 * LIFE)
    if unavailable is not None:
        pytest.skip(f"no FUSE for this user: {unavailable}")
