"""Shared memory that travels inside messages."""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, overload

from ipc_channel._core import Memory
from ipc_channel.codecs.kinds import Kind, register
from ipc_channel.codecs.reduction import reduce_handle
from ipc_channel.ownership import Closing

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["SharedMemory"]

_CHUNK: Final = 1 << 20
"""Bytes compared or filled at a time: fits a cache, so nothing large is copied."""


class SharedMemory(Memory, Closing):
    """A region of memory that several processes see. Sending it costs the same for a byte and for a gigabyte.

    Made by :meth:`from_bytes`, :meth:`filled` or :meth:`create`. It is a buffer: ``memoryview(memory)``,
    ``bytes(memory)`` and ``numpy.frombuffer(memory)`` work, without a copy where the other side has none.
    ``memory[i]`` is an int and ``memory[i:j]`` is bytes, as with ``bytes``; for a slice that shares the memory
    take it from the view. ``==`` compares the contents with those of any buffer.

    A message carries a duplicate: sender and receiver share the region, and each closes its own. One that nobody
    refers to any longer is closed as any other object, without a warning.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(ipc.SharedMemory)
    >>> with sender, receiver, ipc.SharedMemory.from_bytes(b"a large array") as memory:
    ...     sender.send(memory)
    ...     with receiver.recv() as received:
    ...         bytes(received), received[2:7], received == memory
    (b'a large array', b'large', True)
    """

    @classmethod
    def from_bytes(cls, buffer: "Buffer", /) -> Self:
        """A frozen copy of a contiguous buffer.

        Raises TypeError if it is no buffer, BufferError if it is not contiguous.
        """
        with memoryview(buffer) as source:
            if not source.contiguous:
                raise BufferError("a buffer must be contiguous to be copied into shared memory")
            if not source.nbytes:
                return cls(Memory.copy_of(b""))
            # As bytes: a cast from Fortran order is refused.
            with source.cast("B") if source.c_contiguous else memoryview(source.tobytes("A")) as content:
                return cls(Memory.copy_of(content))

    @classmethod
    def filled(cls, byte: int, size: int) -> Self:
        """A frozen region of ``size`` bytes, each ``byte`` (0 to 255).

        Raises ValueError for a byte or a size out of range.
        """
        if not 0 <= byte <= 255:
            raise ValueError(f"a byte is 0 to 255, not {byte}")
        memory = cls.create(size)
        if byte:
            with memoryview(memory) as target:
                chunk = bytes([byte]) * min(size, _CHUNK)
                for start in range(0, size, _CHUNK):
                    target[start : start + _CHUNK] = chunk[: size - start]
        memory.freeze()
        return memory

    @classmethod
    def create(cls, size: int, *, mutable: bool = False) -> Self:
        """A region of ``size`` zero bytes, to be written through ``memoryview(memory)`` or ``memory[i] = ...``.

        The first send freezes it: nobody can write to it from then on. With ``mutable=True`` it is never frozen,
        and both sides can write to it at any time; keeping them apart is then up to them.

        Pages are taken when they are first written. Raises ValueError for a negative size, KernelError when the
        system refuses one so large.
        """
        if size < 0:
            raise ValueError(f"a size cannot be negative: {size}")
        return cls(Memory.create_region(size, mutable))

    def clone(self) -> Self:
        """Another object for the same region, to be closed by itself. ClosedError."""
        return type(self)(self.clone_region())

    def take(self) -> bytearray:
        """The contents as a bytearray of one's own; this object is closed.

        Raises BufferError, and closes nothing, while a view of it exists; ClosedError.
        """
        content = bytearray(self)
        self.close()
        return content

    @overload
    def __getitem__(self, key: int, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __getitem__(self, key: int | slice, /) -> int | bytes:
        with memoryview(self) as view:
            if isinstance(key, slice):
                return view[key].tobytes()
            return view[key]

    @overload
    def __setitem__(self, key: int, value: int, /) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: "Buffer", /) -> None: ...
    def __setitem__(self, key: Any, value: Any, /) -> None:
        with memoryview(self) as view:
            view[key] = value

    def __eq__(self, other: object, /) -> bool:
        if self is other:
            return True
        try:
            with memoryview(other) as theirs, memoryview(self) as ours:  # type: ignore[arg-type]
                return _same(ours, theirs)
        except TypeError:
            return NotImplemented

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.closed:
            return "<SharedMemory closed>"
        state = "mutable" if self.mutable else "frozen" if self.frozen else "writable until sent"
        return f"<SharedMemory of {len(self)} bytes, {state}>"

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return reduce_handle(self)


def _same(ours: memoryview, theirs: memoryview) -> bool:
    """Whether the bytes are the same, compared by pieces: slices of memoryview compare item by item."""
    if ours.nbytes != theirs.nbytes:
        return False
    flat = theirs.cast("B") if theirs.c_contiguous and theirs.nbytes else memoryview(theirs.tobytes())
    with flat:
        return all(
            ours[start : start + _CHUNK].tobytes() == flat[start : start + _CHUNK].tobytes()
            for start in range(0, ours.nbytes, _CHUNK)
        )


register(Kind(SharedMemory, Memory))
