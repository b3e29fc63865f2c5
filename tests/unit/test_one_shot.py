"""Two processes that share nothing yet find each other by a name."""

from __future__ import annotations

import gc
import math
import os
import signal
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import ipc_channel as ipc
from tests.support.packets import WRONG_DESCRIPTORS, raw_client, send_packet, wrong_descriptor
from tests.support.snippets import CAN_CHANGE_USER, OTHER_UID, run_snippet
from tests.support.start_methods import START_METHODS, run, start

needs_another_user = pytest.mark.skipif(not CAN_CHANGE_USER, reason="only root can become another user")


def connect_and_send(name: str, message: str) -> None:
    with ipc.connect(name, str) as sender:
        sender.send(message)


class Later(threading.Thread):
    """Call something in a thread, some 50 ms from now, and raise in ``result`` what it raised."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        super().__init__()
        self._call = lambda: function(*arguments)
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        time.sleep(0.05)
        try:
            self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error


def test_accept_first() -> None:
    with ipc.OneShotServer(str) as server:
        client = Later(connect_and_send, server.name, "hello")
        receiver, first = server.accept()
        client.result()
    with receiver:
        assert type(receiver) is ipc.Receiver
        assert (first, list(receiver)) == ("hello", [])


def test_connect_first() -> None:
    with ipc.OneShotServer(str) as server, ipc.connect(server.name, str) as sender:
        sender.send("one")
        sender.send("two")
        receiver, first = server.accept(timeout=10)
        assert server.closed
        with receiver:
            assert (first, receiver.recv()) == ("one", "two")


def test_a_client_that_has_gone_before_accept() -> None:
    with ipc.OneShotServer(str) as server:
        with ipc.connect(server.name, str) as sender:
            sender.send("one")
            sender.send("two")
        receiver, first = server.accept(timeout=10)
        with receiver:
            assert [first, *receiver] == ["one", "two"]


@pytest.mark.parametrize("method", START_METHODS)
def test_across_processes(method: str) -> None:
    with ipc.OneShotServer(str) as server, start(method, connect_and_send, server.name, "hello") as child:
        receiver, first = server.accept(timeout=30)
        with receiver:
            assert first == "hello"
            assert list(receiver) == []
        child.result()


def _exchange(name: str) -> str:
    """Send a sender to the parent; it answers with the name of a second server, to which the answer goes."""
    sender, receiver = ipc.channel(str)
    with receiver, ipc.connect(name, ipc.Sender[str]) as first:
        first.send(sender)
        second_name = receiver.recv(30)
    connect_and_send(second_name, "through the second server")
    return "done"


@pytest.mark.parametrize("method", START_METHODS)
def test_an_embedded_sender_and_a_second_server(method: str) -> None:
    with ipc.OneShotServer(ipc.Sender[str]) as server, start(method, _exchange, server.name) as child:
        receiver, sender = server.accept(timeout=30)
        with receiver, sender, ipc.OneShotServer(str) as second:
            sender.send(second.name)
            answers, answer = second.accept(timeout=30)
            answers.close()
        assert answer == "through the second server"
        assert child.result() == "done"


def test_any_picklable_object_without_a_type() -> None:
    with ipc.OneShotServer() as server, ipc.connect(server.name) as sender:
        sender.send({1, 2})
        receiver, first = server.accept()
        with receiver:
            assert first == {1, 2}


def test_bytes() -> None:
    with ipc.BytesOneShotServer() as server, ipc.connect_bytes(server.name) as sender:
        sender.send(b"")
        sender.send(bytearray(b"raw"))
        receiver, first = server.accept()
        with receiver:
            assert type(receiver) is ipc.BytesReceiver
            assert (first, receiver.recv()) == (b"", b"raw")


@pytest.mark.parametrize("size", [1, 64 * 1024, 8 * 1024 * 1024])
def test_first_messages_of_any_size(size: int) -> None:
    with ipc.OneShotServer(bytes) as server, ipc.connect(server.name, bytes) as sender:
        sender.send(b"x" * size)
        receiver, first = server.accept()
        receiver.close()
        assert first == b"x" * size


def test_a_type_that_no_channel_carries() -> None:
    with pytest.raises(TypeError):
        ipc.OneShotServer(threading.Thread)
    with ipc.OneShotServer(int) as server, pytest.raises(TypeError):
        ipc.connect(server.name, threading.Thread)


def test_the_name_is_short_and_fit_for_arguments_and_environment() -> None:
    with (
        ipc.OneShotServer(int) as server,
        ipc.OneShotServer(int) as other,
        ipc.OneShotServer(int, allow_uid=1) as third,
    ):
        for name in (server.name, other.name, third.name):
            assert isinstance(name, str)
            assert len(name.encode()) <= 107
            assert name.isprintable()
            assert not set(name) & set(" \t\n'\"$`\\*?;&|<>()\0")
        assert len({server.name, other.name, third.name}) == 3


def test_timeouts() -> None:
    with ipc.OneShotServer(int) as server:
        with pytest.raises(ipc.AcceptTimeout):
            server.accept(0)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            server.accept(timeout=0.02)
        assert time.monotonic() - started >= 0.02
        for timeout in (-1, math.nan):
            with pytest.raises(ValueError, match="timeout"):
                server.accept(timeout)
            with pytest.raises(ValueError, match="timeout"):
                ipc.connect(server.name, int, timeout=timeout)
        with ipc.connect(server.name, int, timeout=0) as sender:
            sender.send(1)
            receiver, first = server.accept(math.inf)
            receiver.close()
            assert first == 1


def test_accept_on_a_server_that_has_served_or_is_closed() -> None:
    with ipc.OneShotServer(int) as server:
        with ipc.connect(server.name, int) as sender:
            sender.send(1)
            server.accept()[0].close()
        with pytest.raises(ipc.ClosedError, match="served"):
            server.accept()
    with pytest.raises(ipc.ClosedError):
        server.accept()
    server = ipc.OneShotServer(int)
    server.close()
    server.close()
    assert server.closed
    with pytest.raises(ipc.ClosedError, match="closed"):
        server.accept()


def test_close_in_another_thread_ends_accept() -> None:
    with ipc.OneShotServer(int) as server:
        closing = Later(server.close)
        with pytest.raises(ipc.ClosedError):
            server.accept()
        closing.result()


def test_ctrl_c_ends_accept() -> None:
    main = threading.main_thread().ident
    assert main is not None
    with ipc.OneShotServer(int) as server:
        pressing = Later(signal.pthread_kill, main, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            server.accept()
        pressing.result()
        with ipc.connect(server.name, int) as sender:
            sender.send(1)
            receiver, first = server.accept()
            receiver.close()
            assert first == 1


class Interrupting:
    """Raises KeyboardInterrupt the first time it is unpickled: Ctrl-C in the middle of decoding."""

    interrupted = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Interrupting.revive, ()

    @staticmethod
    def revive() -> str:
        if not Interrupting.interrupted:
            Interrupting.interrupted = True
            raise KeyboardInterrupt
        return "revived"


def test_an_interrupted_accept_does_not_lose_the_client() -> None:
    Interrupting.interrupted = False
    with ipc.OneShotServer() as server, ipc.connect(server.name) as sender:
        sender.send(Interrupting())
        sender.send("next")
        with pytest.raises(KeyboardInterrupt):
            server.accept()
        receiver, first = server.accept()
        with receiver:
            assert (first, receiver.recv()) == ("revived", "next")


def test_a_second_client_is_told_that_the_server_has_served() -> None:
    with ipc.OneShotServer(int) as server, ipc.connect(server.name, int) as sender:
        sender.send(1)
        receiver, _ = server.accept()
        with receiver:
            with pytest.raises(ipc.ConnectError, match="served"):
                ipc.connect(server.name, int)
            sender.send(2)
            assert receiver.recv() == 2, "the first client is not disturbed"


def test_a_second_client_is_told_that_another_is_waiting() -> None:
    with ipc.OneShotServer(int) as server, ipc.connect(server.name, int) as sender:
        started = time.monotonic()
        with pytest.raises(ipc.ConnectError, match="another client"):
            ipc.connect(server.name, int, timeout=0.05)
        assert time.monotonic() - started >= 0.05
        with pytest.raises(ipc.ConnectError, match="another client"):
            ipc.connect(server.name, int, timeout=0)
        sender.send(1)
        receiver, first = server.accept()
        with receiver:
            assert first == 1


def test_a_second_client_gets_its_turn_when_the_first_leaves_without_a_message() -> None:
    with ipc.OneShotServer(int) as server:
        first_client = ipc.connect(server.name, int)
        leaving = Later(first_client.close)
        with ipc.connect(server.name, int, timeout=30) as sender:
            leaving.result()
            sender.send(2)
            receiver, first = server.accept()
            receiver.close()
            assert first == 2


@pytest.mark.parametrize("allow_uid", [None, os.getuid()])
def test_clients_that_wait_for_their_turn_leave_room_for_whoever_gets_it(allow_uid: int | None) -> None:
    with ipc.OneShotServer(int, allow_uid=allow_uid) as server:
        first_client = ipc.connect(server.name, int)
        # More looks at the seat than the server's queue has places; it does not accept meanwhile.
        for timeout in [1, *[0] * 150]:
            with pytest.raises(ipc.ConnectError, match="another client"):
                ipc.connect(server.name, int, timeout=timeout)
        first_client.close()
        with ipc.connect(server.name, int, timeout=0) as sender:
            sender.send(2)
            receiver, first = server.accept()
            receiver.close()
            assert first == 2


@pytest.mark.parametrize("allow_uid", [None, os.getuid()])
def test_a_client_that_waits_for_its_turn_is_told_when_the_server_ends(allow_uid: int | None) -> None:
    with ipc.OneShotServer(int, allow_uid=allow_uid) as server, ipc.connect(server.name, int):
        ending = Later(lambda: (time.sleep(0.1), server.close()))
        with pytest.raises(ipc.ConnectError, match="no such server"):
            ipc.connect(server.name, int, timeout=30)
        ending.result()


def _connect_and_wait(name: str, ready: ipc.Sender[None]) -> None:
    with ipc.connect(name, int), ready:
        ready.send(None)
        time.sleep(3600)


@pytest.mark.parametrize("method", START_METHODS)
def test_a_silent_client_that_is_killed_does_not_use_the_server_up(method: str) -> None:
    ready, ready_receiver = ipc.channel(None)
    with ipc.OneShotServer(int) as server, ready_receiver:
        with ready, start(method, _connect_and_wait, server.name, ready, kinds=[ipc.Sender[None]]) as child:
            ready_receiver.recv(30)
            with pytest.raises(ipc.AcceptTimeout):
                server.accept(0.02)
            child.kill()
            child.wait()
        with ipc.connect(server.name, int) as sender:
            sender.send(1)
            receiver, first = server.accept(10)
            receiver.close()
            assert first == 1


def test_a_silent_raw_client_does_not_stand_in_the_way() -> None:
    with ipc.OneShotServer(int) as server, raw_client(server.name), raw_client(server.name):
        with ipc.connect(server.name, int) as sender:
            sender.send(1)
            receiver, first = server.accept(10)
            receiver.close()
            assert first == 1


GARBAGE = [b"\x00", b"garbage", b"\xff" * 8, b"\x00" * 64, b"\x7f" * 4096, os.urandom(60_000)]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda data: f"{len(data)} bytes")
def test_garbage_from_a_raw_socket_does_not_use_the_server_up(garbage: bytes) -> None:
    with ipc.OneShotServer(int) as server, raw_client(server.name) as raw:
        send_packet(raw, garbage)
        with pytest.raises(ipc.AcceptTimeout):
            server.accept(0.02)
        with ipc.connect(server.name, int) as sender:
            sender.send(1)
            receiver, first = server.accept(10)
            receiver.close()
            assert first == 1


@pytest.mark.parametrize("kind", WRONG_DESCRIPTORS)
def test_garbage_with_descriptors_is_closed(kind: str) -> None:
    with ipc.OneShotServer(int) as server, raw_client(server.name) as raw:
        with wrong_descriptor(kind) as descriptor:
            send_packet(raw, b"garbage", [descriptor] * 3)
        with pytest.raises(ipc.AcceptTimeout):
            server.accept(0.02)


def test_an_undecodable_first_message_drops_that_client_alone() -> None:
    with ipc.OneShotServer(int) as server:
        with ipc.connect(server.name, str) as wrong:
            wrong.send("no int")
            with pytest.raises(ipc.DecodeError) as caught:
                server.accept()
            assert isinstance(caught.value.__cause__, msgspec.ValidationError)
            with pytest.raises(ipc.ReceiverGone):
                for _ in range(1000):
                    wrong.send("more")
        assert not server.closed
        with ipc.connect(server.name, int) as sender:
            sender.send(1)
            receiver, first = server.accept(10)
            receiver.close()
            assert first == 1


def test_a_typed_server_refuses_a_client_that_pickles() -> None:
    with ipc.OneShotServer(int) as server:
        with ipc.connect(server.name) as wrong:
            wrong.send(1)
            with pytest.raises(ipc.DecodeError):
                server.accept(10)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nonsense",
        "/tmp/nothing",
        "@nonsense",
        "/proc/self/fd/0#" + "0" * 48,
        f"/proc/{os.getpid()}/fd/4000000#" + "a" * 48,
        "/proc/999999999/fd/3#" + "a" * 48,
        f"@ipc-channel-{os.geteuid()}-1-" + "a" * 24 + "#" + "a" * 24,
        "x" * 108,
        "/proc/1/fd/" + "1" * 100 + "#" + "a" * 24,
        "with\0nul#" + "a" * 24,
        "é" * 60,
    ],
)
def test_a_name_that_does_not_exist_or_is_no_name(name: str) -> None:
    with pytest.raises(ipc.ConnectError):
        ipc.connect(name, int)


def test_a_name_over_107_bytes_is_called_too_long() -> None:
    with pytest.raises(ipc.ConnectError, match="107"):
        ipc.connect("x" * 108, int)


def test_the_name_of_a_closed_server() -> None:
    with ipc.OneShotServer(int) as server:
        name = server.name
    with pytest.raises(ipc.ConnectError, match="no such server"):
        ipc.connect(name, int)


def test_a_descriptor_that_is_another_servers_by_now_is_not_mistaken_for_the_first() -> None:
    with ipc.OneShotServer(int) as server:
        name = server.name
    with ipc.OneShotServer(int) as other:
        # Most likely the descriptor's number is the same again; the nonce is not.
        mixed = other.name.partition("#")[0] + "#" + name.partition("#")[2]
        with pytest.raises(ipc.ConnectError):
            ipc.connect(mixed, int)


def test_a_name_that_is_no_string() -> None:
    with pytest.raises(TypeError):
        ipc.connect(5)  # type: ignore[call-overload]


AS_ANOTHER_USER = """
import sys, ipc_channel as ipc
try:
    with ipc.connect(sys.argv[1], int) as sender:
        sender.send(1)
    print("connected")
except ipc.ConnectError as error:
    print("refused:", error)
"""

RAW_AS_ANOTHER_USER = """
import socket, sys
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    client.connect("\\0" + sys.argv[1][1:] if sys.argv[1][0] == "@" else sys.argv[1].partition("#")[0])
    client.send(b"from another user")
except OSError as error:
    print("refused:", error)
else:
    print("connected")
"""


@needs_another_user
def test_another_user_is_refused() -> None:
    with ipc.OneShotServer(int) as server:
        result = run_snippet(AS_ANOTHER_USER, server.name, as_other_user=True)
        assert result.stdout.startswith("refused:")
        result = run_snippet(RAW_AS_ANOTHER_USER, server.name, as_other_user=True, preload=["socket"])
        assert result.stdout.startswith("refused:")
        with ipc.connect(server.name, int) as sender:
            sender.send(2)
            receiver, first = server.accept(10)
            receiver.close()
            assert first == 2


@needs_another_user
def test_allow_uid_lets_that_user_in() -> None:
    with ipc.OneShotServer(int, allow_uid=OTHER_UID) as server:
        assert run_snippet(AS_ANOTHER_USER, server.name, as_other_user=True).stdout == "connected\n"
        receiver, first = server.accept(10)
        with receiver:
            assert [first, *receiver] == [1]


@needs_another_user
def test_allow_uid_lets_nobody_else_in() -> None:
    with ipc.OneShotServer(int, allow_uid=OTHER_UID - 1) as server:
        run_snippet(AS_ANOTHER_USER, server.name, as_other_user=True)
        run_snippet(RAW_AS_ANOTHER_USER, server.name, as_other_user=True, preload=["socket"])
        with pytest.raises(ipc.AcceptTimeout):
            server.accept(0.05)
        with ipc.connect(server.name, int) as sender:
            sender.send(2)
            receiver, first = server.accept(10)
            receiver.close()
            assert first == 2


def files() -> list[Path]:
    return sorted(Path(tempfile.gettempdir()).glob("*ipc*"))


def test_no_file_is_left_even_while_the_server_lives() -> None:
    before = files()
    with ipc.OneShotServer(int):
        assert files() == before


def _serve_and_wait(names: ipc.Sender[str]) -> None:
    with ipc.OneShotServer(int) as server, names:
        names.send(server.name)
        server.accept()


@pytest.mark.parametrize("method", START_METHODS)
def test_nothing_is_left_of_a_killed_server(method: str) -> None:
    before = files()
    names, names_receiver = ipc.channel(str)
    with names_receiver:
        with names, start(method, _serve_and_wait, names, kinds=[ipc.Sender[str]]) as child:
            name = names_receiver.recv(30)
            sender = ipc.connect(name, int)
            child.kill()
            child.wait()
        with sender, pytest.raises(ipc.ReceiverGone):
            for _ in range(1000):
                sender.send(1)
        with pytest.raises(ipc.ConnectError, match="no such server"):
            ipc.connect(name, int)
    assert files() == before


@pytest.mark.parametrize("method", START_METHODS)
def test_nothing_is_left_of_a_killed_client(method: str) -> None:
    before = files()
    ready, ready_receiver = ipc.channel(None)
    with ipc.OneShotServer(int) as server, ready_receiver, ready:
        with start(method, _connect_and_wait, server.name, ready, kinds=[ipc.Sender[None]]) as child:
            ready_receiver.recv(30)
            child.kill()
            child.wait()
        assert files() == before


def test_descriptors_of_a_server_are_not_inherited_by_programs() -> None:
    with ipc.OneShotServer(int) as server, ipc.connect(server.name, int) as sender:
        sender.send(1)
        receiver, _ = server.accept()
        with receiver:
            assert not os.get_inheritable(receiver.fileno())
            assert not os.get_inheritable(sender.fileno())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_aaccept(backend: str) -> None:
    async def main() -> None:
        with ipc.OneShotServer(str) as server:
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.02):
                    await server.aaccept()
            client = Later(connect_and_send, server.name, "hello")
            receiver, first = await server.aaccept()
            receiver.close()
            await anyio.to_thread.run_sync(client.result)
            assert first == "hello"
            with pytest.raises(ipc.ClosedError):
                await server.aaccept()

    anyio.run(main, backend=backend)


def test_a_cancelled_aaccept_takes_nothing() -> None:
    async def main() -> None:
        with ipc.OneShotServer(int) as server, ipc.connect(server.name, int) as sender:
            sender.send(1)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await server.aaccept()
            assert scope.cancelled_caught
            receiver, first = await server.aaccept()
            receiver.close()
            assert first == 1

    anyio.run(main)


def test_accept_from_several_threads_serves_one() -> None:
    results: list[Any] = []
    with ipc.OneShotServer(int) as server:

        def work() -> None:
            try:
                results.append(server.accept(30))
            except ipc.ClosedError as error:
                results.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        with ipc.connect(server.name, int) as sender:
            sender.send(1)
            for thread in threads:
                thread.join(30)
    served = [result for result in results if isinstance(result, tuple)]
    assert len(results) == 4
    assert [first for _, first in served] == [1]
    for receiver, _ in served:
        receiver.close()


def _use_inherited_server() -> str:
    assert inherited is not None
    with pytest.raises(ipc.ForkError, match="make a new one"):
        inherited.accept(0)
    with ipc.OneShotServer(int) as own, ipc.connect(own.name, int) as sender:
        sender.send(1)
        own.accept()[0].close()
    return "done"


inherited: Any = None


def test_a_server_belongs_to_the_process_that_made_it() -> None:
    global inherited
    with ipc.OneShotServer(int) as inherited:
        assert run("fork", _use_inherited_server) == "done"
        with ipc.connect(inherited.name, int) as sender:
            sender.send(1)
            inherited.accept()[0].close()
    inherited = None


def test_repr_and_resource_warning() -> None:
    server = ipc.OneShotServer(int)
    assert repr(server) == f"<OneShotServer {server.name}>"
    name = server.name
    with pytest.warns(ResourceWarning, match="unclosed <OneShotServer"):
        del server
        gc.collect()
    with pytest.raises(ipc.ConnectError):
        ipc.connect(name, int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server = ipc.OneShotServer(int)
        server.close()
        assert repr(server) == "<OneShotServer closed>"
        del server
        gc.collect()


def test_peer_process_is_known() -> None:
    with ipc.OneShotServer(int) as server, ipc.connect(server.name, int) as sender:
        sender.send(1)
        receiver, _ = server.accept()
        with receiver:
            assert receiver.peer_pid == sender.peer_pid == os.getpid()
            assert str(os.getpid()) in repr(receiver)


PROGRAM = """
import sys, ipc_channel as ipc
with ipc.connect(sys.argv[1], str) as sender:
    sender.send("test message")
"""


def test_a_program_connects_to_the_name_on_its_command_line() -> None:
    with ipc.OneShotServer(str) as server:
        assert run_snippet(PROGRAM, server.name).returncode == 0
        receiver, first = server.accept(10)
        with receiver:
            assert [first, *receiver] == ["test message"]
