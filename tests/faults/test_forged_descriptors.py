"""Whatever descriptors come: too few, too many, of the wrong kind, or in damaged chains."""

from __future__ import annotations

import contextlib
import os

import pytest

import ipc_channel as ipc
from tests.faults.forging import (
    ALL_SEALS,
    BODY_IN_FILE,
    ENTRY,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FDS_A_LINK,
    FILE,
    MEMORY,
    NO_MEMORY,
    NO_SOCKETS,
    RECEIVER,
    SENDER,
    chain,
    descriptor_of,
    has_huge_pages,
    header,
    honest,
    link,
    memory_file,
    with_handles,
)
from tests.faults.victim import Victim
from tests.support.packets import send_packet, socket_of, socket_pair


def test_an_honest_packet_with_handles_is_taken(victim: Victim) -> None:
    """Otherwise the refusals below would say nothing. That a bytes channel has no use for them is its codec's word."""
    first, second = socket_pair()
    with first, second, memory_file(b"memory", ALL_SEALS) as memory, open("/dev/null") as null:
        descriptors = [first.fileno(), second.fileno(), memory, null.fileno()]
        send_packet(victim.raw, with_handles([SENDER, RECEIVER, MEMORY, FILE]), descriptors)
    with pytest.raises(ipc.DecodeError):
        victim.receiver.recv(20)


@pytest.mark.parametrize(("said", "carried"), [(0, 1), (0, 253), (1, 0), (1, 2), (2, 1), (250, 249), (249, 250)])
def test_another_number_of_descriptors_than_it_says(victim: Victim, said: int, carried: int) -> None:
    with open("/dev/null") as null:
        victim.refuses(with_handles([FILE] * said), [null.fileno()] * carried)


@pytest.mark.parametrize("count", [1, 3, 253])
def test_descriptors_beside_garbage_are_closed(victim: Victim, count: int) -> None:
    reading, writing = os.pipe()
    try:
        victim.refuses(b"garbage", [writing] * count)
    finally:
        os.close(writing)
    try:
        assert os.read(reading, 1) == b"", "the pipe has no writer any more"
    finally:
        os.close(reading)


@pytest.mark.parametrize("kind", [4, 5, 255])
def test_an_unknown_kind_of_handle(victim: Victim, kind: int) -> None:
    with open("/dev/null") as null:
        victim.refuses(with_handles([kind]), [null.fileno()])


@pytest.mark.parametrize("kind", NO_SOCKETS)
@pytest.mark.parametrize("said", [SENDER, RECEIVER], ids=["sender", "receiver"])
def test_what_is_no_channels_socket_is_refused_as_an_end(victim: Victim, said: int, kind: str) -> None:
    with descriptor_of(kind) as descriptor:
        victim.refuses(with_handles([said]), [descriptor])
        with open("/dev/null") as null:
            victim.refuses(with_handles([FILE, said, FILE]), [null.fileno(), descriptor, null.fileno()])


@pytest.mark.parametrize("kind", NO_MEMORY)
def test_what_is_no_sealed_memory_is_refused_as_memory(victim: Victim, kind: str) -> None:
    if kind == "huge pages" and not has_huge_pages():
        pytest.skip("this kernel has no memory files of huge pages")
    with descriptor_of(kind) as descriptor:
        victim.refuses(with_handles([MEMORY]), [descriptor])


@pytest.mark.parametrize("seals", range(16))
def test_memory_is_taken_only_if_nobody_can_shrink_it(seals: int) -> None:
    sender, receiver = ipc.channel(ipc.SharedMemory)
    with sender, receiver, socket_of(sender) as raw, memory_file(b"memory", seals) as memory:
        # What a typed channel itself sends for a region: the extension value of handle 0.
        payload = bytes([0xD6, 73]) + bytes(4)
        send_packet(raw, with_handles([MEMORY], payload=payload), [memory])
        if seals & F_SEAL_SHRINK:
            with receiver.recv(20) as region:
                assert bytes(region) == b"memory"
                assert region.frozen == bool(seals & F_SEAL_WRITE)
        else:
            with pytest.raises(ipc.ProtocolError):
                receiver.recv(20)


def _raw(sender: ipc.Sender[ipc.SharedMemory]):  # type: ignore[no-untyped-def]
    from tests.support.packets import socket_of

    return socket_of(sender)


BODY = b"a body in a file"


def in_file(length: int, payload: int | None = None, handles: int = 0) -> bytes:
    """The header of a message whose body of that length is in a file."""
    return header(
        flags=BODY_IN_FILE,
        handles=handles,
        payload=length - ENTRY.size * handles if payload is None else payload,
        body=length,
    )


def test_an_honest_body_in_a_file_is_taken(victim: Victim) -> None:
    with memory_file(BODY, ALL_SEALS) as file:
        send_packet(victim.raw, in_file(len(BODY)), [file])
    assert victim.receiver.recv(20) == BODY


@pytest.mark.parametrize(
    "seals",
    [0, F_SEAL_SEAL, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_WRITE | F_SEAL_GROW, ALL_SEALS & ~F_SEAL_WRITE],
)
def test_a_body_that_its_sender_could_still_change_is_refused(victim: Victim, seals: int) -> None:
    with memory_file(BODY, seals) as file:
        victim.refuses(in_file(len(BODY)), [file])


@pytest.mark.parametrize("length", [0, 1, len(BODY) - 1, len(BODY) + 1, 4096, 2**31, 2**62, 2**64 - 1])
def test_a_body_file_of_another_length_than_it_says_is_refused(victim: Victim, length: int) -> None:
    with memory_file(BODY, ALL_SEALS) as file:
        victim.refuses(in_file(length), [file])


def test_an_empty_body_file_is_refused(victim: Victim) -> None:
    with memory_file(b"", ALL_SEALS) as file:
        victim.refuses(in_file(0), [file])


@pytest.mark.parametrize("size", [1 << 20, 1 << 40])
def test_a_body_file_without_pages_is_refused(victim: Victim, size: int) -> None:
    """It cost its sender nothing, and reading it would cost us its size."""
    with memory_file(b"", ALL_SEALS, sparse=size) as file:
        victim.refuses(in_file(size), [file])


@pytest.mark.parametrize("kind", [kind for kind in NO_MEMORY if kind != "unsealed memfd"])
def test_a_body_file_of_another_kind_is_refused(victim: Victim, kind: str) -> None:
    if kind == "huge pages" and not has_huge_pages():
        pytest.skip("this kernel has no memory files of huge pages")
    with descriptor_of(kind) as descriptor:
        victim.refuses(in_file(len(BODY)), [descriptor])


def test_bytes_beside_a_body_in_a_file_do_not_become_part_of_it(victim: Victim) -> None:
    with memory_file(BODY, ALL_SEALS) as file:
        send_packet(victim.raw, in_file(len(BODY)) + b"beside", [file])
    with contextlib.suppress(ipc.ProtocolError):
        assert victim.receiver.recv(20) == BODY
    send_packet(victim.raw, honest(b"next"))
    assert victim.receiver.recv(20) == b"next"


def test_a_second_file_beside_the_body_is_refused(victim: Victim) -> None:
    with memory_file(BODY, ALL_SEALS) as file:
        victim.refuses(in_file(len(BODY)), [file, file])
        victim.refuses(in_file(len(BODY), handles=2), [file, file])


COUNT = 600
FULL = (FDS_A_LINK, FDS_A_LINK, COUNT - 2 * FDS_A_LINK)


def test_an_honest_chain_is_taken(victim: Victim) -> None:
    with open("/dev/null") as null, chain([(link(at), FULL[at]) for at in range(3)], null.fileno()) as socket:
        send_packet(victim.raw, with_handles([FILE] * COUNT, chains=1), [socket])
    with pytest.raises(ipc.DecodeError):
        victim.receiver.recv(20)


CHAINS = {
    "nothing in it": [],
    "too few links": [(link(0), FULL[0]), (link(1), FULL[1])],
    "another order": [(link(at), FULL[at]) for at in (2, 0, 1)],
    "one twice": [(link(0), FULL[0]), (link(0), FULL[0]), (link(2), FULL[2])],
    "an index beyond": [(link(0), FULL[0]), (link(1), FULL[1]), (link(3), FULL[2])],
    "a huge index": [(link(2**32 - 1), FULL[0]), (link(1), FULL[1]), (link(2), FULL[2])],
    "an index that overflows": [(link((2**32 - 1) // FDS_A_LINK + 1), FULL[0]), (link(1), FULL[1])],
    "a descriptor missing": [(link(0), FULL[0]), (link(1), FULL[1] - 1), (link(2), FULL[2])],
    "a descriptor too many": [(link(0), FULL[0]), (link(1), FULL[1]), (link(2), FULL[2] + 1)],
    "a link without descriptors": [(link(0), FULL[0]), (link(1), 0), (link(2), FULL[2])],
    "a short index": [(link(0)[:3], FULL[0]), (link(1), FULL[1]), (link(2), FULL[2])],
    "a long index": [(link(0) + b"\0", FULL[0]), (link(1), FULL[1]), (link(2), FULL[2])],
    "an empty index": [(b"", FULL[0]), (link(1), FULL[1]), (link(2), FULL[2])],
}


@pytest.mark.parametrize("links", CHAINS.values(), ids=CHAINS)
def test_a_damaged_chain_is_refused(victim: Victim, links: list[tuple[bytes, int]]) -> None:
    with open("/dev/null") as null, chain(links, null.fileno()) as socket:
        assert "damaged" in victim.refuses(with_handles([FILE] * COUNT, chains=1), [socket])


def test_links_beyond_the_last_do_no_harm(victim: Victim) -> None:
    links = [*((link(at), FULL[at]) for at in range(3)), (link(3), 1), (b"", 1)]
    with open("/dev/null") as null, chain(links, null.fileno()) as socket:
        send_packet(victim.raw, with_handles([FILE] * COUNT, chains=1), [socket])
    with pytest.raises((ipc.DecodeError, ipc.ProtocolError)):
        victim.receiver.recv(20)


@pytest.mark.parametrize("handles", [0, 1, COUNT])
@pytest.mark.parametrize("chains", [2, 125, 250, 251, 2**32 - 1])
def test_another_number_of_chains_than_it_says(victim: Victim, handles: int, chains: int) -> None:
    with chain([], victim.raw.fileno()) as socket:
        victim.refuses(with_handles([FILE] * handles, chains=chains), [socket])


def test_a_chain_where_none_is_needed_and_more_than_one(victim: Victim) -> None:
    said = with_handles([FILE] * COUNT, chains=1)
    with open("/dev/null") as null:
        with chain([(link(at), FULL[at]) for at in range(3)], null.fileno()) as socket:
            victim.refuses(with_handles([], chains=1), [socket])
            victim.refuses(said, [socket, socket])
            victim.refuses(said, [null.fileno(), socket])
            victim.refuses(said, [])


@pytest.mark.parametrize("kind", NO_SOCKETS)
def test_a_chain_that_is_something_else(victim: Victim, kind: str) -> None:
    with descriptor_of(kind) as descriptor:
        victim.refuses(with_handles([FILE] * COUNT, chains=1), [descriptor])


def test_a_chain_that_is_being_filled_while_it_is_read(victim: Victim) -> None:
    """Its sender keeps the other side: the reader neither waits for it nor believes it."""
    inlet, outlet = socket_pair()
    with inlet, outlet, open("/dev/null") as null:
        send_packet(inlet, link(0), [null.fileno()] * FULL[0])
        victim.refuses(with_handles([FILE] * COUNT, chains=1), [outlet.fileno()])


def test_wrong_kinds_inside_a_chain(victim: Victim) -> None:
    links = [(link(at), FULL[at]) for at in range(3)]
    for said, kind in ((SENDER, "pipe"), (MEMORY, "tcp"), (RECEIVER, "sealed memfd"), (9, "file")):
        with descriptor_of(kind) as descriptor, chain(links, descriptor) as socket:
            victim.refuses(with_handles([said] * COUNT, chains=1), [socket])
