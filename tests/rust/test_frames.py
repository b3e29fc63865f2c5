"""What we send is, byte for byte and packet for packet, what the crate sends for the same values."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

import pytest

import ipc_channel as ipc
from ipc_channel.codecs.rust import VERSIONS, rust_codec
from ipc_channel.rust import u64
from tests.rust import wire
from tests.rust.commands import Parcel
from tests.rust.peers import TIMEOUT, executable
from tests.rust.produced import SIZES, VALUES, parcels, sample


def messages(connected: socket.socket, shape: wire.Frames) -> list[wire.Message | None]:
    """All messages of a client: those on the bytes channel that its first one brings, then its others."""
    numbers: list[int] = []
    found = [wire.receive(connected, shape, keep=numbers)]
    assert len(numbers) == 1
    for source in (socket.socket(fileno=numbers[0]), connected):
        with source:
            while (message := wire.receive(source, shape)) is not None:
                found.append(message)
            found.append(None)
    return found


@pytest.fixture(scope="module")
def of_the_crate(built: None) -> dict[str, list[wire.Message | None]]:
    """By codec, what the crate sends."""
    found: dict[str, list[wire.Message | None]] = {}
    for codec in VERSIONS:
        with wire.listening() as (name, server):
            with subprocess.Popen([executable(codec), "produce", name]) as process:
                connected, _ = server.accept()
                found[codec] = messages(connected, wire.frames(codec))
                assert process.wait(TIMEOUT) == 0
    return found


def ours(codec: Any, name: str) -> None:
    """Send what ``peer produce`` sends."""
    with ipc.connect(name, None, codec=codec) as outer:

        def send(form: Any, value: Any) -> None:
            with outer.clone().to_opaque().to(form) as sender:
                sender.send(value)

        there, receiver = ipc.bytes_channel(codec=codec)
        send(ipc.BytesReceiver, receiver)
        with there:
            for size in SIZES:
                there.send(sample(size))
        for form, value in VALUES:
            send(form, value)
        for parcel, kept in parcels(codec):
            send(Parcel, parcel)
            for memory in kept:
                memory.close()


def test_our_packets_are_those_of_the_crate(codec: Any, of_the_crate: dict[str, list[wire.Message | None]]) -> None:
    shape = wire.frames(codec)
    with wire.listening() as (name, server):
        ours(codec, name)  # it does not wait for anybody who reads
        connected, _ = server.accept()
        found = messages(connected, shape)
    theirs = of_the_crate[codec]
    assert len(found) == len(theirs)
    for number, (mine, other) in enumerate(zip(found, theirs, strict=True)):
        assert mine == other, number


def test_the_crate_sends_as_this_package_has_it(codec: Any, of_the_crate: dict[str, list[wire.Message | None]]) -> None:
    """Sizes, headers and values: so the comparison compares what it should."""
    shape = wire.frames(codec)
    every = of_the_crate[codec]
    assert every[0] is not None
    assert every[0].handles == ("socket",)
    size = len(SIZES)
    for found, expected in zip(every[1 : size + 1], SIZES, strict=True):
        assert found == wire.Message(shape.head(expected), sample(expected), (), tuple(shape.sizes(expected)))
    assert every[size + 1] is None
    for found, (form, value) in zip(every[size + 2 :], VALUES, strict=False):
        assert found is not None
        assert found.payload == rust_codec(form, VERSIONS[codec]).encode(value)
        assert rust_codec(form, VERSIONS[codec]).decode(found.payload) == value
    small, large, end = every[-3:]
    assert small is not None
    assert large is not None
    assert small.handles == ("socket",) * 28 + ("memory",) * 8
    assert large.handles == ("socket",) * 14 + ("memory",) * 4
    assert len(large.parts) > 1
    assert end is None


def test_what_a_failed_send_of_the_crate_leaves_is_closed(codec: Any) -> None:
    """The newer versions put handles that no value refers to into the thread's next message."""
    shape = wire.frames(codec)
    with ipc.OneShotServer(list[ipc.Sender[u64]], codec=codec) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(server.name)
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            left, watched = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            memory = os.memfd_create("left over", os.MFD_CLOEXEC)
            os.truncate(memory, 10)
            payload = b"\x01\x00" if codec != "rust-0.20" else (1).to_bytes(8, "little") + bytes(8)
            wire.send(client, shape, payload, [one.fileno(), left.fileno(), memory])
            os.close(memory)
            one.close()
            left.close()
            receiver, (sender,) = server.accept(TIMEOUT)
            with receiver, sender, other, watched:
                sender.send(5)
                received = wire.receive(other, shape)
                assert received is not None
                assert int.from_bytes(received.payload, "little") == 5
                watched.settimeout(TIMEOUT)
                assert watched.recv(1) == b""  # nobody holds the other end
