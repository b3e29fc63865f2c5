"""Shared memory, in one process: contents, views, freezing, taking."""

from __future__ import annotations

import array
import gc
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ipc_channel as ipc


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 20])
def test_contents_come_as_they_went(size: int) -> None:
    content = os.urandom(size)
    sender, receiver = ipc.channel(ipc.SharedMemory)
    with sender, receiver, ipc.SharedMemory.from_bytes(content) as memory:
        sender.send(memory)
        with receiver.recv() as received:
            assert bytes(received) == bytes(memory) == content
            assert len(received) == len(memory) == size


class TestMaking:
    @pytest.mark.parametrize(
        "buffer",
        [
            bytearray(b"abc"),
            memoryview(b"xabcx")[1:4],
            array.array("i", [1, -2, 3]),
            np.arange(6, dtype=">i4").reshape(2, 3),
            np.zeros((0, 3)),
        ],
    )
    def test_from_any_contiguous_buffer(self, buffer: Any) -> None:
        with ipc.SharedMemory.from_bytes(buffer) as memory:
            assert bytes(memory) == memoryview(buffer).tobytes()
            assert memory.frozen

    def test_from_fortran_order_keeps_the_bytes_as_they_lie(self) -> None:
        content = np.asfortranarray(np.arange(6, dtype="u1").reshape(2, 3))
        with ipc.SharedMemory.from_bytes(content) as memory:
            assert bytes(memory) == content.tobytes("A") == bytes([0, 3, 1, 4, 2, 5])

    def test_not_from_gaps_or_text(self) -> None:
        with pytest.raises(BufferError):
            ipc.SharedMemory.from_bytes(memoryview(b"abcdef")[::2])
        with pytest.raises(TypeError):
            ipc.SharedMemory.from_bytes("text")  # type: ignore[arg-type]

    @pytest.mark.parametrize("size", [0, 3, (1 << 20) + 3])
    @pytest.mark.parametrize("byte", [0, 7, 255])
    def test_filled(self, byte: int, size: int) -> None:
        with ipc.SharedMemory.filled(byte, size) as memory:
            assert bytes(memory) == bytes([byte]) * size

    @pytest.mark.parametrize(
        "make",
        [
            lambda: ipc.SharedMemory.filled(256, 1),
            lambda: ipc.SharedMemory.filled(-1, 1),
            lambda: ipc.SharedMemory.filled(0, -1),
            lambda: ipc.SharedMemory.create(-1),
        ],
    )
    def test_numbers_out_of_range(self, make: Callable[[], object]) -> None:
        with pytest.raises(ValueError):
            make()

    def test_more_than_there_can_be(self) -> None:
        with pytest.raises(OSError), ipc.SharedMemory.create(1 << 62) as memory:
            memoryview(memory)


class TestFreezing:
    def test_created_memory_is_writable_until_the_first_send(self) -> None:
        sender, receiver = ipc.channel(ipc.SharedMemory)
        with sender, receiver, ipc.SharedMemory.create(4) as memory:
            memory[0] = 1
            memory[1:3] = b"ab"
            with memoryview(memory) as view:
                view[3] = 9
            assert not memory.frozen
            sender.send(memory)
            assert memory.frozen
            with pytest.raises(TypeError):
                memory[0] = 2
            with receiver.recv() as received:
                assert bytes(received) == b"\x01ab\x09"
                with memoryview(received) as view:
                    assert view.readonly

    def test_it_needs_all_writable_views_gone(self) -> None:
        with ipc.SharedMemory.create(4) as memory:
            with memoryview(memory), pytest.raises(BufferError):
                memory.freeze()
            memory.freeze()
            with memoryview(memory):
                memory.freeze()  # a view that cannot write does no harm

    def test_mutable_memory_is_written_by_both_sides(self) -> None:
        sender, receiver = ipc.channel(ipc.SharedMemory)
        with sender, receiver, ipc.SharedMemory.create(4, mutable=True) as memory, memoryview(memory) as view:
            sender.send(memory)
            with receiver.recv() as received:
                assert received.mutable
                assert not received.frozen
                received[0] = 5
                view[1] = 6
                assert bytes(received) == bytes(memory) == b"\x05\x06\0\0"


class TestReading:
    def test_items_and_slices_are_those_of_bytes(self) -> None:
        content = b"0123456789"
        with ipc.SharedMemory.from_bytes(content) as memory:
            for key in (
                slice(None),
                slice(2, 5),
                slice(-3, None),
                slice(None, None, 3),
                slice(8, 2, -2),
                slice(20, 30),
            ):
                assert memory[key] == content[key]
                assert type(memory[key]) is bytes
            assert memory[0] == content[0]
            assert memory[-1] == content[-1]
            with pytest.raises(IndexError):
                memory[10]
            assert list(memory) == list(content)

    def test_equality_is_that_of_the_contents(self) -> None:
        content = os.urandom((1 << 20) + 5)
        changed = bytearray(content)
        changed[-1] ^= 1
        with (
            ipc.SharedMemory.from_bytes(content) as memory,
            ipc.SharedMemory.from_bytes(content) as same,
            ipc.SharedMemory.from_bytes(changed) as other,
        ):
            assert memory == memory
            assert memory == same
            assert memory == content
            assert content == memory
            assert memory == np.frombuffer(content, dtype="u1")
            assert memory != other
            assert memory != content[:-1]
            assert memory != "text"
            assert memory != 5

    def test_empty_memory_equals_empty_bytes(self) -> None:
        with ipc.SharedMemory.create(0) as memory:
            assert memory == b""
            assert memory != b"x"
            assert memory == np.zeros((0, 3))

    def test_it_cannot_be_hashed_since_its_contents_may_change(self) -> None:
        with ipc.SharedMemory.create(1) as memory, pytest.raises(TypeError):
            hash(memory)

    def test_numpy_without_a_copy(self) -> None:
        with ipc.SharedMemory.create(32) as memory:
            writing = np.frombuffer(memory, dtype="f8")
            writing[:] = [1, 2, 3, 4]
            reading = np.frombuffer(memory, dtype="f8")
            assert reading.sum() == 10
            assert np.shares_memory(writing, reading)
            del writing, reading


class TestOwning:
    def test_clones_are_closed_by_themselves(self) -> None:
        memory = ipc.SharedMemory.from_bytes(b"abc")
        with memory.clone() as twin:
            memory.close()
            assert memory.closed
            assert twin == b"abc"

    def test_take_gives_the_contents_and_closes(self) -> None:
        memory = ipc.SharedMemory.from_bytes(b"abc")
        taken = memory.take()
        assert type(taken) is bytearray
        assert taken == b"abc"
        assert memory.closed
        with ipc.SharedMemory.create(0) as empty:
            assert empty.take() == b""

    def test_neither_close_nor_take_while_a_view_exists(self) -> None:
        with ipc.SharedMemory.from_bytes(b"abc") as memory:
            with memoryview(memory) as view:
                with pytest.raises(BufferError):
                    memory.close()
                with pytest.raises(BufferError):
                    memory.take()
                assert bytes(view) == b"abc"
            assert not memory.closed

    @pytest.mark.parametrize(
        "use",
        [
            bytes,
            memoryview,
            lambda memory: memory[0],
            lambda memory: memory.clone(),
            lambda memory: memory.take(),
            lambda memory: memory.freeze(),
            lambda memory: memory == b"x",
        ],
    )
    def test_closed_memory_says_so(self, use: Callable[[Any], object]) -> None:
        memory = ipc.SharedMemory.from_bytes(b"abc")
        memory.close()
        memory.close()
        with pytest.raises(ipc.ClosedError):
            use(memory)

    def test_a_view_outlives_the_last_reference(self) -> None:
        view = memoryview(ipc.SharedMemory.from_bytes(b"abc"))
        gc.collect()
        assert bytes(view) == b"abc"
        view.release()

    def test_forgetting_it_is_no_mistake(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ipc.SharedMemory.from_bytes(b"abc")
            gc.collect()
        assert caught == []


def test_repr() -> None:
    with ipc.SharedMemory.create(3) as memory:
        assert repr(memory) == "<SharedMemory of 3 bytes, writable until sent>"
        memory.freeze()
        assert repr(memory) == "<SharedMemory of 3 bytes, frozen>"
    assert repr(memory) == "<SharedMemory closed>"
    with ipc.SharedMemory.create(3, mutable=True) as memory:
        assert repr(memory) == "<SharedMemory of 3 bytes, mutable>"
