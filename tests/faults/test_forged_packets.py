"""Whatever bytes come: an error for that packet alone, and the channel goes on."""

from __future__ import annotations

import contextlib
import queue
import random
import struct
from typing import Final

import pytest

import ipc_channel as ipc
from tests.faults.forging import BODY_IN_FILE, HEADER, NEXT, VERSION, header, honest
from tests.faults.victim import Victim
from tests.support.packets import raw_client, send_packet, socket_of

HELLO: Final = b"hello"


def forged(**fields: int | bytes) -> bytes:
    """The honest packet of ``HELLO`` with other values in some fields of its header."""
    return header(**{"payload": len(HELLO), "body": len(HELLO)} | fields) + HELLO  # type: ignore[arg-type]


def buffers(*words: int, payload: int = 0, body: int | None = None, content: bytes = b"") -> bytes:
    """A packet with that table of buffers."""
    table = b"".join(struct.pack("<Q", word) for word in words)
    inside = table + content
    return header(buffers=len(words), payload=payload, body=len(inside) if body is None else body) + inside


FORGERIES: Final = {
    "empty": b"",
    "one byte": b"\0",
    "seven bytes": b"garbage",
    "magic alone": b"ipcN",
    "all but a header": honest(b"")[:-1],
    "zeros": bytes(200),
    "ones": b"\xff" * 200,
    "text": b"GET / HTTP/1.1\r\n\r\n" * 4,
    "as large as a packet": b"\xaa" * 65536,
    "larger than a packet": honest(bytes(65536 - HEADER.size + 1)),
    "much larger": b"\xaa" * 150_000,
    "magic": forged(magic=b"ipcM"),
    **{f"flag {1 << bit}": forged(flags=1 << bit) for bit in range(1, 8)},
    "body in a file that is not there": forged(flags=BODY_IN_FILE),
    **{f"version {number}": forged(version=number) for number in (0, VERSION - 1, VERSION + 1, 255)},
    **{f"kind {number}": forged(kind=number) for number in range(NEXT + 1, 256, 50)},
    "the first zero": forged(zero=1),
    "the second zero": forged(reserved=1),
    "the last zero": forged(rest=1),
    **{f"{number} handles": forged(handles=number) for number in (1, 2, 250, 253, 2**31, 2**32 - 1)},
    **{f"{number} buffers": forged(buffers=number) for number in (1, 2**20, 2**31, 2**32 - 1)},
    **{f"{number} chains": forged(chains=number) for number in (1, 125, 126, 2**32 - 1)},
    **{f"payload of {number}": forged(payload=number) for number in (0, 4, 6, 2**31, 2**63, 2**64 - 1)},
    **{f"body of {number}": forged(body=number) for number in (0, 4, 6, 2**31, 2**63, 2**64 - 1)},
    "both lengths too small": forged(payload=4, body=4),
    "both lengths too large": forged(payload=6, body=6),
    "payload that overflows with the tables": forged(payload=2**64 - 1, body=2**64 - 1, handles=2**32 - 1),
    "more handles than the body has room for": header(handles=3, body=8) + bytes(8),
    "more buffers than the body has room for": header(buffers=3, body=16) + bytes(16),
    "a buffer longer than the body": buffers(100 << 1),
    "a buffer of half the address space": buffers((2**63 - 1) << 1),
    "buffers that overflow together": buffers((2**62) << 1, (2**62) << 1, (2**62) << 1),
    "a buffer shorter than the body": buffers(1 << 1, content=bytes(64 - 8 + 2)),
}


def test_the_unforged_packet_is_a_message(victim: Victim) -> None:
    for payload in (b"", HELLO, bytes(65536 - HEADER.size)):
        send_packet(victim.raw, honest(payload))
        assert victim.receiver.recv(20) == payload


@pytest.mark.parametrize("packet", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_packet_is_an_error_for_itself_alone(victim: Victim, packet: bytes) -> None:
    victim.refuses(packet)


@pytest.mark.parametrize("form", [int, None], ids=["typed", "pickled"])
@pytest.mark.parametrize("packet", [b"", b"garbage", forged(body=4)], ids=["empty", "garbage", "body length"])
def test_the_same_whatever_the_codec(packet: bytes, form: type | None) -> None:
    sender, receiver = ipc.channel(form) if form else ipc.channel()
    with sender, receiver, socket_of(sender) as raw:
        send_packet(raw, packet)
        sender.send(7)
        with pytest.raises(ipc.ProtocolError):
            receiver.recv(20)
        assert receiver.recv(20) == 7


def test_many_empty_packets_are_neither_messages_nor_the_end(victim: Victim) -> None:
    for _ in range(50):
        send_packet(victim.raw, b"")
    send_packet(victim.raw, honest(b"after them"))
    for _ in range(50):
        with pytest.raises(ipc.ProtocolError):
            victim.receiver.recv(20)
    assert victim.receiver.recv(20) == b"after them"
    victim.raw.close()
    with pytest.raises(ipc.Disconnected):
        victim.receiver.recv(20)


def test_the_end_after_an_empty_packet_is_still_the_end(victim: Victim) -> None:
    send_packet(victim.raw, b"")
    victim.raw.close()
    with pytest.raises(ipc.ProtocolError):
        victim.receiver.recv(20)
    for _ in range(2):
        with pytest.raises(ipc.Disconnected):
            victim.receiver.recv(20)


def test_recv_many_returns_what_came_before_the_garbage_and_then_raises(victim: Victim) -> None:
    for packet in (honest(b"one"), honest(b"two"), b"garbage", honest(b"three")):
        send_packet(victim.raw, packet)
    assert victim.receiver.recv_many() == [b"one", b"two"]
    with pytest.raises(ipc.ProtocolError):
        victim.receiver.recv_many()
    assert victim.receiver.recv_many() == [b"three"]


def test_iteration_raises_and_can_be_resumed(victim: Victim) -> None:
    for packet in (honest(b"one"), b"garbage", honest(b"two")):
        send_packet(victim.raw, packet)
    victim.raw.close()
    came: list[bytes] = []
    with pytest.raises(ipc.ProtocolError):
        for message in victim.receiver:
            came.append(message)
    came += victim.receiver
    assert came == [b"one", b"two"]


def test_in_a_set_the_garbage_of_one_does_not_touch_the_others(victim: Victim) -> None:
    honest_sender, honest_receiver = ipc.bytes_channel()
    with ipc.ReceiverSet[str]() as receivers, honest_sender:
        receivers.add(victim.receiver, "attacked")
        receivers.add(honest_receiver, "honest")
        for packet in (b"garbage", b"", honest(b"after")):
            send_packet(victim.raw, packet)
        honest_sender.send(b"untouched")
        events = []
        while len(events) < 4:
            events += receivers.select(20)
        attacked = [event for event in events if event.key == "attacked"]
        assert [type(event) for event in attacked] == [ipc.Undecodable, ipc.Undecodable, ipc.Received]
        assert ipc.Received("honest", b"untouched") in events


def test_a_router_reports_garbage_and_goes_on(victim: Victim) -> None:
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with ipc.Router(on_error=errors.put) as router:
        router.add_route(victim.receiver, messages.put)
        send_packet(victim.raw, b"garbage")
        send_packet(victim.raw, honest(b"after"))
        assert messages.get(timeout=20) == b"after"
        assert isinstance(errors.get(timeout=20), ipc.ProtocolError)


@pytest.mark.parametrize("packet", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_first_packet_does_not_use_a_one_shot_server_up(packet: bytes) -> None:
    with ipc.BytesOneShotServer() as server:
        with raw_client(server.name) as raw:
            send_packet(raw, packet)
            with pytest.raises(ipc.AcceptTimeout):
                server.accept(0)
        with ipc.connect_bytes(server.name) as sender:
            sender.send(b"first")
            receiver, first = server.accept(20)
            receiver.close()
            assert first == b"first"


@pytest.mark.parametrize("seed", range(4))
def test_mutations_of_honest_packets(victim: Victim, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(400):
        packet = bytearray(honest(chance.randbytes(chance.randrange(100))))
        for _ in range(chance.randrange(1, 4)):
            match chance.randrange(3):
                case 0 if packet:
                    packet[chance.randrange(min(len(packet), HEADER.size))] = chance.randrange(256)
                case 1:
                    del packet[chance.randrange(len(packet) + 1) :]
                case _:
                    packet += chance.randbytes(chance.randrange(20))
        send_packet(victim.raw, bytes(packet))
        with contextlib.suppress(ipc.ProtocolError, ipc.DecodeError):
            assert victim.receiver.recv(20) in bytes(packet)
    send_packet(victim.raw, honest(b"at the end"))
    assert victim.receiver.recv(20) == b"at the end"
