"""What the Rust crate does wrong on Linux, each with a test that this package differs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import ipc_channel as ipc
from tests.conformance.carrying import carry
from tests.conformance.implementations import DATA, PARCELS, Implementation, Kind
from tests.conformance.patterns import BIG, pattern
from tests.faults.forging import FILE, header, honest, with_handles
from tests.support.packets import raw_client, send_packet, socket_of
from tests.support.start_methods import run, start


def fill(sender: Any, capacity: int) -> None:
    """Send as many messages as the channel's capacity is."""
    for number in range(capacity):
        sender.try_send(b"%d" % number)
    with pytest.raises(ipc.Full):
        sender.try_send(b"too much")


# `send` blocks when the buffer is full. Here it does so only where a capacity was asked for, and can be interrupted.


@pytest.mark.parametrize("kind", [DATA, PARCELS])
@pytest.mark.parametrize("way", ["send", "try_send", "send_many"])
def test_an_unbounded_channel_is_never_full(implementation: Implementation, kind: Kind, way: str) -> None:
    """The kernel's socket buffers hold 278 messages at most."""
    count = 5000

    def message(number: int) -> Any:
        content = b"%d" % number
        return content if kind is DATA else implementation.parcel(payload=content)

    sender, receiver = implementation.make_channel(kind)
    with sender, receiver:
        if way == "send_many":
            sender.send_many(message(number) for number in range(count))
        else:
            for number in range(count):
                getattr(sender, way)(message(number))
        sender.close()
        came = list(receiver)
    assert came == [message(number) for number in range(count)]


def test_large_messages_do_not_fill_an_unbounded_channel_either(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver:
        for _ in range(100):
            sender.send(pattern(BIG), timeout=0)
        sender.close()
        assert all(message == pattern(BIG) for message in receiver)
        assert receiver.statistics().messages == 100


@pytest.mark.needs("capacity")
def test_a_send_on_a_full_channel_times_out_and_has_sent_nothing(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA, capacity=20)
    with sender, receiver:
        fill(sender, 20)
        began = time.monotonic()
        with pytest.raises(ipc.SendTimeout):
            sender.send(b"too much", timeout=0.02)
        assert time.monotonic() - began >= 0.02
        assert receiver.recv_many() == [b"%d" % number for number in range(20)]
        sender.send(b"room again", timeout=0)
        assert receiver.recv() == b"room again"


def _interrupt_a_send(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA, capacity=20)
    with sender, receiver:
        fill(sender, 20)
        main = threading.main_thread().ident
        assert main is not None
        later = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT])
        later.start()
        with pytest.raises(KeyboardInterrupt):
            sender.send(b"too much")
        later.join()
        assert receiver.recv_many() == [b"%d" % number for number in range(20)]


@pytest.mark.needs("capacity")
def test_ctrl_c_ends_a_send_on_a_full_channel(implementation: Implementation) -> None:
    run("fork", _interrupt_a_send, implementation)


# A failed send destroys the receiver in it.


@pytest.mark.needs("capacity")
def test_a_failed_send_leaves_the_receiver_in_it_usable(implementation: Implementation) -> None:
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    inner_sender.send(b"waiting")
    for fail in ("gone", "full"):
        sender, receiver = implementation.make_channel(PARCELS, capacity=1)
        with sender, receiver:
            if fail == "gone":
                receiver.close()
            else:
                sender.send(implementation.parcel())
            with pytest.raises((ipc.ReceiverGone, ipc.SendTimeout)):
                sender.send(implementation.parcel(receivers=[inner_receiver]), timeout=0)
    with inner_receiver:
        assert inner_receiver.recv() == b"waiting"
        inner_sender.close()
        with pytest.raises(ipc.Disconnected):
            inner_receiver.recv()


# `try_recv`, timeouts and `select` block on a half-sent large message. A sender's death in mid-message ends the
# whole channel although other senders live.


def _wait_until_stopped(pid: int) -> None:
    """Until no thread of it runs any more."""
    tasks = Path(f"/proc/{pid}/task")
    while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
        time.sleep(0.001)


def _send_large_ones_and_be_stopped(implementation: Implementation, sender: Any) -> None:
    while True:
        sender.send(pattern(8 * BIG))


@pytest.mark.parametrize("fate", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_sender_that_is_stopped_or_killed_in_mid_message_disturbs_nobody(
    implementation: Implementation, fate: signal.Signals
) -> None:
    for round_number in range(6):
        sender, receiver = implementation.make_channel(DATA)
        with receiver, sender, implementation.make_receiver_set() as receivers:
            with start("fork", _send_large_ones_and_be_stopped, implementation, sender) as child:
                assert receiver.recv(30) == pattern(8 * BIG)
                time.sleep(0.0007 * round_number)
                child.kill(fate)
                if fate is signal.SIGKILL:
                    child.wait()
                else:
                    _wait_until_stopped(child.pid)
                sender.send(b"from another sender")
                came: list[bytes] = []
                while b"from another sender" not in came:
                    assert receiver.poll(30)
                    came.append(receiver.try_recv())
                with pytest.raises((ipc.Empty, ipc.RecvTimeout)):
                    receiver.try_recv()
                with pytest.raises(ipc.RecvTimeout):
                    receiver.recv(0.001)
                assert all(message == pattern(8 * BIG) for message in came[:-1])
                receivers.add(receiver)
                assert receivers.select(0.001) == []


# Timeouts below 1 ms become 0.


@pytest.mark.parametrize("timeout", [0.0001, 0.0004, 0.0009])
@pytest.mark.needs("capacity")
def test_timeouts_below_a_millisecond_are_kept(implementation: Implementation, timeout: float) -> None:
    sender, receiver = implementation.make_channel(DATA, capacity=20)
    other_sender, other = implementation.make_channel(DATA)
    with (
        sender,
        receiver,
        other_sender,
        implementation.make_receiver_set() as receivers,
        implementation.make_server(DATA) as server,
    ):
        receivers.add(other)
        fill(sender, 20)
        receiver.recv_many()
        for wait in (receiver.recv, receiver.poll, receivers.select, server.accept):
            began = time.monotonic()
            with contextlib.suppress(ipc.RecvTimeout, ipc.AcceptTimeout):
                assert not wait(timeout)
            assert time.monotonic() - began >= timeout
        fill(sender, 20)
        began = time.monotonic()
        with pytest.raises(ipc.SendTimeout):
            sender.send(b"x", timeout=timeout)
        assert time.monotonic() - began >= timeout


# EINTR surfaces, and mid-message loses it.


def _exchange_under_signals(implementation: Implementation) -> int:
    handled: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: handled.append(number))
    signal.siginterrupt(signal.SIGALRM, True)
    sender, receiver = implementation.make_channel(DATA)

    def send_all() -> None:
        with sender:
            for number in range(40):
                sender.send(bytes([number]) + pattern(BIG))
                time.sleep(0.001)

    thread = threading.Thread(target=send_all)
    with receiver:
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            came = [message[0] for message in receiver if message[1:] == pattern(BIG)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        thread.join()
    assert came == list(range(40))
    return len(handled)


def test_no_signal_surfaces_or_loses_a_message(implementation: Implementation) -> None:
    assert run("fork", _exchange_under_signals, implementation) > 0


# More than 64 fds panic.


@pytest.mark.parametrize("count", [65, 254, 2000])
@pytest.mark.needs("many handles")
def test_more_than_64_descriptors_in_a_message(implementation: Implementation, count: int) -> None:
    with open("/dev/null") as null:
        parcel = carry(implementation, files=[ipc.Fd(null)] * count)
    # Pickle keeps identity: then it is one file, so often.
    assert len(parcel.files) == count
    for file in parcel.files:
        file.close()


# EMFILE on receive panics.


@pytest.mark.needs("files")
def test_the_limit_on_open_files_is_an_error_and_the_message_stays(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(PARCELS)
    with sender, receiver, open("/dev/null") as null:
        sender.send(implementation.parcel(payload=b"patient", files=[ipc.Fd(null), ipc.Fd(null)]))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1, hard))
        try:
            for _ in range(3):
                with pytest.raises(ipc.TooManyHandles):
                    receiver.recv(20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        parcel = receiver.recv(20)
        assert parcel.payload == b"patient"
        for file in parcel.files:
            file.close()


# A decoding error kills the router thread. Adding a route blocks.


@pytest.mark.parametrize("form", [int, None], ids=["typed", "pickled"])
def test_a_message_that_cannot_be_decoded_does_not_end_a_router(form: type | None) -> None:
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    sender, receiver = ipc.channel(form) if form else ipc.channel()
    with ipc.Router(on_error=errors.put) as router, sender, socket_of(sender) as raw:
        router.add_route(receiver, came.put)
        send_packet(raw, honest(b"\xc1"))
        sender.send(7)
        assert came.get(timeout=20) == 7
        assert isinstance(errors.get(timeout=20), ipc.DecodeError)


def test_adding_a_route_does_not_wait_for_a_callback(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    running, go_on = threading.Event(), threading.Event()

    def callback(message: bytes) -> None:
        running.set()
        go_on.wait()

    with implementation.make_router() as router, sender:
        router.add_route(receiver, callback)
        sender.send(b"x")
        assert running.wait(20)
        other_sender, other = implementation.make_channel(DATA)
        router.add_route(other, callback)
        other_sender.close()
        go_on.set()


# A second client's connect "succeeds" and its data is lost. A silent client blocks accept for ever.


@pytest.mark.needs("seat")
def test_a_second_client_is_told_and_loses_nothing(implementation: Implementation) -> None:
    with implementation.make_server(DATA) as server, implementation.connect(server.name, DATA) as first_client:
        first_client.send(b"the one")
        with pytest.raises(ipc.ConnectError):
            implementation.connect(server.name, DATA)
        receiver, first = server.accept(20)
        with receiver:
            assert first == b"the one"
            with pytest.raises(ipc.ConnectError):
                implementation.connect(server.name, DATA)


def test_a_silent_client_does_not_keep_another_from_being_accepted(implementation: Implementation) -> None:
    with implementation.make_server(DATA) as server, raw_client(server.name), raw_client(server.name):
        with pytest.raises(ipc.AcceptTimeout):
            server.accept(0.01)
        with implementation.connect(server.name, DATA) as sender:
            sender.send(b"speaks")
            receiver, first = server.accept(20)
            receiver.close()
            assert first == b"speaks"


# Shared memory is unsealed (SIGBUS).


def test_shared_memory_cannot_be_shrunk_under_its_reader(implementation: Implementation) -> None:
    with implementation.make_memory(pattern(BIG)) as memory:
        number = memory.duplicate_fd()
        try:
            for change in (lambda: os.ftruncate(number, 0), lambda: os.pwrite(number, b"x", 0)):
                with pytest.raises(PermissionError):
                    change()
            with pytest.raises(PermissionError):
                fcntl.fcntl(number, 1033, 0)  # F_ADD_SEALS: nobody changes the seals either
        finally:
            os.close(number)
        [arrived] = carry(implementation, regions=[memory]).regions
        with arrived:
            assert arrived == pattern(BIG)


# An accepted socket lacks CLOEXEC.


def _is_inherited(number: int) -> bool:
    return os.get_inheritable(number)


@pytest.mark.needs("files")
def test_every_descriptor_is_closed_on_exec(implementation: Implementation) -> None:
    before = set(os.listdir("/proc/self/fd"))
    sender, receiver = implementation.make_channel(DATA)
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    with (
        sender,
        receiver,
        implementation.make_server(DATA) as server,
        implementation.connect(server.name, DATA) as client,
        implementation.make_receiver_set(),
        implementation.make_memory(b"x") as memory,
        sender.clone(),
        open("/dev/null") as null,
    ):
        client.send(b"x")
        accepted, _ = server.accept(20)
        parcel = carry(
            implementation, senders=[inner_sender], receivers=[inner_receiver], regions=[memory], files=[ipc.Fd(null)]
        )
        receiver.fileno()
        with accepted, parcel.senders[0], parcel.receivers[0], parcel.regions[0], parcel.files[0]:
            numbers = {int(number) for number in set(os.listdir("/proc/self/fd")) - before}
            open_ones = [number for number in numbers if os.path.exists(f"/proc/self/fd/{number}")]
            assert len(open_ones) > 10
            assert [number for number in open_ones if _is_inherited(number)] == []


# A large send to a dead receiver hangs.


def test_a_large_send_to_a_dead_receiver_fails(implementation: Implementation) -> None:
    sender, receiver = implementation.make_channel(DATA)
    receiver.close()
    with sender, pytest.raises(ipc.ReceiverGone):
        sender.send(pattern(32 * BIG))


def test_a_large_send_whose_receiver_dies_in_a_message_that_nobody_read(implementation: Implementation) -> None:
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    sender, receiver = implementation.make_channel(PARCELS)
    with inner_sender:
        sender.send(implementation.parcel(receivers=[inner_receiver]))
        sender.close()
        receiver.close()
        with pytest.raises(ipc.ReceiverGone):
            inner_sender.send(pattern(32 * BIG))


# A failed send attaches its handles to the thread's next send on any channel, and a nested send steals the outer one's.


class Unpicklable:
    """Raises when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("not this one")


def test_the_handles_of_a_send_that_failed_to_encode_do_not_travel_with_the_next() -> None:
    failing, failing_receiver = ipc.channel()
    sender, receiver = ipc.channel()
    end, end_receiver = ipc.channel()
    with failing, failing_receiver, sender, receiver, end, end_receiver:
        with pytest.raises(ipc.EncodeError):
            failing.send([end, Unpicklable()])
        sender.send("next")
        assert receiver.recv() == "next"
        assert sender.statistics().handles == 0
        assert not end.closed
        failing.send("and here")
        assert failing_receiver.recv() == "and here"


def test_the_handles_of_a_send_that_found_no_receiver_do_not_travel_with_the_next(
    implementation: Implementation,
) -> None:
    inner_sender, inner_receiver = implementation.make_channel(DATA)
    gone, gone_receiver = implementation.make_channel(PARCELS)
    gone_receiver.close()
    with gone, inner_sender, inner_receiver:
        with pytest.raises(ipc.ReceiverGone):
            gone.send(implementation.parcel(senders=[inner_sender]))
        parcel = carry(implementation, payload=b"next")
        assert parcel.senders == []
        inner_sender.close()
        with pytest.raises(ipc.Disconnected):  # no copy of it is under way
            inner_receiver.recv(20)


class Nested:
    """Sends something when it is pickled."""

    def __init__(self, sender: Any, message: Any) -> None:
        self.send = lambda: sender.send(message)

    def __reduce__(self) -> tuple[Any, ...]:
        self.send()
        return str, ("nested",)


def test_a_nested_send_does_not_take_the_outer_ones_handles() -> None:
    sender, receiver = ipc.channel()
    outer, outer_receiver = ipc.channel()
    inner, inner_receiver = ipc.channel()
    with sender, receiver:
        sender.send([outer, Nested(sender, [inner])])
        [arrived_inner] = receiver.recv()
        arrived_outer, text = receiver.recv()
    assert text == "nested"
    for arrived, end in ((arrived_inner, inner_receiver), (arrived_outer, outer_receiver)):
        with arrived, end:
            arrived.send("right")
            assert end.recv() == "right"


# A packet under 8 bytes, an index out of range or a forged length is a panic or worse.


@pytest.mark.parametrize("packet", [b"", b"\0", b"\1\2\3\4\5\6\7"], ids=len)
def test_a_packet_under_8_bytes_is_an_error_for_itself(implementation: Implementation, packet: bytes) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver, socket_of(sender) as raw:
        send_packet(raw, packet)
        sender.send(b"next")
        with pytest.raises(ipc.ProtocolError):
            receiver.recv(20)
        assert receiver.recv(20) == b"next"


@pytest.mark.parametrize("index", [1, 2, 2**31, 2**32 - 1])
def test_an_index_out_of_range_is_an_error_for_itself(index: int) -> None:
    sender, receiver = ipc.channel(ipc.Fd)
    with sender, receiver, socket_of(sender) as raw, open("/dev/null") as null:
        payload = b"\xd6\x49" + index.to_bytes(4, "big")
        send_packet(raw, with_handles([FILE], payload=payload), [null.fileno()])
        sender.send(ipc.Fd(null))
        with pytest.raises(ipc.DecodeError):
            receiver.recv(20)
        receiver.recv(20).close()


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**63 - 1, 2**64 - 1])
def test_a_forged_length_is_an_error_for_itself(implementation: Implementation, length: int) -> None:
    sender, receiver = implementation.make_channel(DATA)
    with sender, receiver, socket_of(sender) as raw:
        for payload, body in ((length, 5), (5, length), (length, length)):
            send_packet(raw, header(payload=payload, body=body) + b"hello")
            with pytest.raises(ipc.ProtocolError):
                receiver.recv(20)
        sender.send(b"next")
        assert receiver.recv(20) == b"next"


def test_the_socket_of_a_receiver_cannot_be_written_to() -> None:
    """Upstream's channels are open in both directions."""
    sender, receiver = ipc.bytes_channel()
    with sender, receiver, socket.socket(fileno=receiver.duplicate_fd()) as raw, pytest.raises(BrokenPipeError):
        raw.send(b"back")
