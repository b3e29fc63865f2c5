"""Channels for Rust programs, with Python at both ends: what is asked for, what travels where, and what is kept."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest
from msgspec import Struct

import ipc_channel as ipc
from ipc_channel import _core
from ipc_channel.codecs.rust import VERSIONS
from ipc_channel.rust import u8

CODECS = list(VERSIONS)


class Letter(Struct):
    sender: ipc.OpaqueSender
    receiver: ipc.OpaqueReceiver
    raw: ipc.BytesSender


class TestAskingForOne:
    @pytest.mark.parametrize("codec", ["", "Rust", "rust-0.19", 22])
    def test_there_is_no_other_codec(self, codec: Any) -> None:
        for ask in (
            lambda: ipc.channel(int, codec=codec),
            lambda: ipc.bytes_channel(codec=codec),
            lambda: ipc.OneShotServer(int, codec=codec),
            lambda: ipc.BytesOneShotServer(codec=codec),
            lambda: ipc.connect("/nowhere", int, codec=codec),
            lambda: ipc.connect_bytes("/nowhere", codec=codec),
        ):
            with pytest.raises(ValueError, match=r"'rust', 'rust-0\.21', 'rust-0\.20'"):
                ask()

    def test_the_type_is_required(self) -> None:
        ask: Any
        for ask in (ipc.channel, ipc.OneShotServer, lambda codec: ipc.connect("/nowhere", codec=codec)):
            with pytest.raises(TypeError, match="needs the type"):
                ask(codec="rust")

    def test_types_without_a_counterpart_are_refused_at_once(self) -> None:
        with pytest.raises(TypeError, match="no open files"):
            ipc.channel(list[ipc.Fd], codec="rust")

    @pytest.mark.parametrize("codec", CODECS)
    def test_a_name_that_is_nobodys(self, codec: Any) -> None:
        for name in ("/nowhere/at/all", "", "a\0b", "/" + "long" * 100):
            with pytest.raises(ipc.ConnectError):
                ipc.connect(name, int, codec=codec)

    def test_a_server_leaves_nothing_behind(self) -> None:
        with ipc.OneShotServer(int, codec="rust") as server:
            folder = os.path.dirname(server.name)
            assert os.stat(folder).st_mode & 0o777 == 0o700
            with ipc.connect(server.name, int, codec="rust") as sender:
                sender.send(1)
                receiver, first = server.accept(10)
            with receiver:
                assert first == 1
                assert not os.path.exists(folder)
            with pytest.raises(ipc.ConnectError, match="no such server"):
                ipc.connect(server.name, int, codec="rust")

    def test_a_forked_child_does_not_take_the_servers_path_away(self) -> None:
        with ipc.OneShotServer(int, codec="rust") as server:
            child = os.fork()
            if child == 0:
                server.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            with ipc.connect(server.name, int, codec="rust") as sender:
                sender.send(1)
                receiver, _ = server.accept(10)
                receiver.close()


@pytest.mark.parametrize("codec", CODECS)
class TestInOtherChannels:
    def test_opaque_and_bytes_ends_travel_through_typed_ones(self, codec: Any) -> None:
        letters, inbox = ipc.channel(Letter)
        one, one_inbox = ipc.channel(u8, codec=codec)
        two, two_inbox = ipc.channel(str, codec=codec)
        raw, raw_inbox = ipc.bytes_channel(codec=codec)
        with letters, inbox:
            letters.send(Letter(one.to_opaque(), two_inbox.to_opaque(), raw))
            letter = inbox.recv()
        with one_inbox, letter.sender.to(u8) as sender:
            sender.send(255)
            assert one_inbox.recv() == 255
            with pytest.raises(ipc.EncodeError):
                sender.send(256)
        with two, letter.receiver.to(str) as receiver:
            two.send("text")
            assert receiver.recv() == "text"
        with raw_inbox, letter.raw:
            letter.raw.send(b"raw")
            assert raw_inbox.recv() == b"raw"
            assert letter.raw.version == VERSIONS[codec].label

    def test_typed_ones_do_not_carry_others(self, codec: Any) -> None:
        outer, outer_inbox = ipc.channel(ipc.Sender[int])
        inner, inner_inbox = ipc.channel(int, codec=codec)
        with outer, outer_inbox, inner, inner_inbox:
            with pytest.raises(ipc.EncodeError, match="to_opaque"):
                outer.send(inner)
            assert outer_inbox.poll() is False
            inner.send(1)
            assert inner_inbox.recv() == 1

    def test_pickling_ones_carry_all_of_them(self, codec: Any) -> None:
        outer, outer_inbox = ipc.channel()
        sender, receiver = ipc.channel(list[u8], codec=codec)
        raw, raw_inbox = ipc.bytes_channel(codec=codec)
        with outer, outer_inbox:
            outer.send({"sender": sender, "receiver": receiver, "raw": raw})
            came = outer_inbox.recv()
        with came["sender"], came["receiver"], came["raw"], raw_inbox:
            assert repr(came["sender"]) == repr(came["receiver"]).replace("Receiver", "Sender")
            came["sender"].send([1, 255])
            assert came["receiver"].recv() == [1, 255]
            came["raw"].send(b"raw")
            assert raw_inbox.recv() == b"raw"

    def test_by_itself_none_can_be_pickled(self, codec: Any) -> None:
        sender, receiver = ipc.channel(int, codec=codec)
        with sender, receiver:
            for end in (sender, receiver):
                with pytest.raises(TypeError, match="cannot be pickled by itself"):
                    pickle.dumps(end)


@pytest.mark.parametrize("codec", CODECS)
class TestWhatIsKept:
    def test_flush_waits_for_the_reader(self, codec: Any) -> None:
        sender, receiver = ipc.channel(int, codec=codec)
        with sender, receiver:
            assert sender.flush(0) is None
            assert sender.statistics().backlog is None
            for number in range(2000):
                sender.send(number, timeout=0)
            assert (sender.statistics().backlog or 0) > 1000
            with pytest.raises(ipc.SendTimeout):
                sender.flush(0.01)
            assert [receiver.recv(10) for _ in range(2000)] == list(range(2000))
            sender.flush(10)
            assert sender.statistics().backlog is None
            assert sender.statistics().messages == 2000
        with pytest.raises(ipc.ClosedError):
            sender.flush()

    def test_flush_says_that_it_is_in_vain(self, codec: Any) -> None:
        sender, receiver = ipc.channel(int, codec=codec)
        with sender:
            sender.send_many(range(2000))
            receiver.close()
            with pytest.raises(ipc.ReceiverGone):
                sender.flush(10)
            with pytest.raises(ipc.ReceiverGone):
                sender.send(1)

    def test_an_inherited_sender_that_is_closed_at_once_still_sends(self, codec: Any) -> None:
        sender, receiver = ipc.bytes_channel(codec=codec)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                receiver.close()
                for _ in range(3):
                    sender.send(bytes(1 << 20))
                sender.close()
                status = 0 if _core.wait_until_written(20) else 2
            finally:
                os._exit(status)
        sender.close()
        with receiver:
            assert [len(message) for message in receiver] == [1 << 20] * 3
        assert os.waitpid(child, 0)[1] == 0

    def test_a_forked_child_has_nothing_to_send_and_holds_nothing(self, codec: Any) -> None:
        sender, receiver = ipc.channel(ipc.Sender[int], codec=codec)
        inner, inner_inbox = ipc.channel(int, codec=codec)
        with receiver, inner_inbox:
            with sender:
                for _ in range(500):
                    sender.send(inner.clone())
                inner.close()
                reading, writing = os.pipe()
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        ipc.close_inherited()
                        held = _core.unwritten()
                        os.close(writing)
                        os.read(reading, 1)  # until the parent is done
                        status = len(held)
                    finally:
                        os._exit(status)
                os.close(reading)
            for each in receiver:
                each.close()
            # Every clone is closed here, and the child has none.
            with pytest.raises(ipc.Disconnected):
                inner_inbox.recv(10)
            os.close(writing)
            assert os.waitpid(child, 0)[1] == 0
