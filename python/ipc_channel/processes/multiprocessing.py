"""Ends, shared memory and files through ``multiprocessing``: as arguments, and over its pipes and queues.

Nothing is registered there, so that importing this package does not import ``multiprocessing``: the objects'
own ``__reduce_ex__`` comes here when its pickler is at work.
"""

import contextlib
import functools
import os
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any, Final, cast

from ipc_channel import _core
from ipc_channel.codecs.reduction import form_of, make_handle
from ipc_channel.errors import ClosedError

__all__ = ["reduce_end"]

_PICKLER: Final = "multiprocessing.reduction"
_BARE: Final[tuple[type[Any], ...]] = (_core.SenderEnd, _core.ReceiverEnd, _core.Memory, _core.File)


def reduce_end(handle: "_core.Handle") -> Any:
    """What ``__reduce_ex__`` returns when no message of a channel is being encoded.

    A sender, shared memory and a file are duplicated. A receiver moves: as an argument of a process once that
    process has started, and is untouched if the start fails; through a pipe, a queue or an executor when it
    is pickled.

    Raises:
        TypeError: Some other pickler is at work, which cannot carry a descriptor.
        ClosedError: It is closed, or was moved.
    """
    if not _multiprocessing_pickles():
        raise TypeError(
            f"{handle!r} cannot be pickled by itself: send it inside a message of a channel, pass it to a "
            "multiprocessing.Process as an argument, or to a subprocess with ipc_channel.passing()"
        )
    popen = sys.modules["multiprocessing.context"].get_spawning_popen()
    carried = _into_queue(handle) if popen is None else _into_child(handle, popen)
    label = handle.label if isinstance(handle, _core.SenderEnd | _core.ReceiverEnd) else None
    return _rebuild, (type(handle), _bare_class(handle), label, form_of(handle), carried)


def _multiprocessing_pickles() -> bool:
    """Whether the innermost code outside this package is that of multiprocessing's pickler.

    A ``pickle.dumps`` inside somebody's ``__reduce__`` is another pickler, although multiprocessing's called it.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith("ipc_channel."):
            return bool(name == _PICKLER)
        frame = frame.f_back
    return False


def _bare_class(handle: "_core.Handle") -> type[Any]:
    """The extension module's class that ``handle`` is one of."""
    return next(cls for cls in _BARE if isinstance(cast("object", handle), cls))


def _duplicate(handle: "_core.SenderEnd | _core.Memory | _core.File") -> int:
    """A descriptor of our own; of a sender, one that holds it."""
    if isinstance(handle, _core.File):
        return os.dup(handle.fileno())
    if isinstance(handle, _core.SenderEnd):
        return handle.envelope()
    return handle.duplicate_fd()


def _into_queue(handle: "_core.Handle") -> Any:
    """Give a descriptor to multiprocessing's resource sharer, from which whoever unpickles fetches it."""
    from multiprocessing.reduction import DupFd

    if isinstance(handle, _core.ReceiverEnd):
        departure = handle.depart()
        try:
            carried = DupFd(departure.fd)
        except BaseException:
            departure.abort()
            raise
        departure.commit()
        return carried
    descriptor = _duplicate(handle)
    try:
        return DupFd(descriptor)
    finally:
        os.close(descriptor)


def _into_child(handle: "_core.Handle", popen: Any) -> Any:
    """Let the child that is being started inherit a descriptor."""
    cargo = _cargo_of(popen)
    if isinstance(handle, _core.ReceiverEnd):
        # Set aside for a moment only: it moves once the child has started, and stays if it does not.
        departure = handle.depart()
        descriptor = os.dup(departure.fd)
        departure.abort()
        cargo.receivers.append(handle)
    else:
        descriptor = _duplicate(handle)
    cargo.descriptors.append(descriptor)
    return popen.DupFd(popen.duplicate_for_child(descriptor))


class _Cargo:
    """What goes to a child that is being started. If the start fails it is dropped, and nothing has happened."""

    def __init__(self) -> None:
        # Under spawn the child inherits these very numbers, so they stay open until it has started.
        self.descriptors: list[int] = []
        self.receivers: list[_core.ReceiverEnd] = []

    def started(self) -> None:
        for receiver in self.receivers:
            with contextlib.suppress(ClosedError):  # closed meanwhile, by another thread
                receiver.depart().commit()
        self.close()

    def close(self, close: Callable[[int], None] = os.close) -> None:
        while self.descriptors:
            close(self.descriptors.pop())

    __del__ = close


def _cargo_of(popen: Any) -> _Cargo:
    """The cargo of a child that is being started.

    ``popen`` becomes an instance of a class that notices when its ``pid`` is set: multiprocessing sets it exactly
    when the child has started, and tells nobody else.
    """
    if not hasattr(popen, "_ipc_channel_cargo"):
        popen._ipc_channel_cargo = _Cargo()
        popen.__class__ = _noticing(cast("Hashable", type(popen)))
    cargo: _Cargo = popen._ipc_channel_cargo
    return cargo


@functools.cache
def _noticing(cls: Any) -> type[Any]:
    def set_pid(self: Any, pid: int) -> None:
        cargo = self.__dict__.pop("_ipc_channel_cargo")
        self.__class__ = cls
        self.pid = pid
        cargo.started()

    return type(cls.__name__, (cls,), {"pid": property(None, set_pid), "__module__": cls.__module__})


def _rebuild(cls: type[Any], bare: type[Any], label: int | None, form: tuple[Any, ...], carried: Any) -> Any:
    """What is unpickled in the other process."""
    descriptor: int = carried.detach()
    try:
        handle = _adopt(bare, descriptor, label)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        return make_handle(cls, handle, form)
    except BaseException:
        handle.close()
        raise


def _adopt(bare: type[Any], descriptor: int, label: int | None) -> "_core.Handle":
    if bare is _core.Memory:
        return _core.adopt_memory(descriptor)
    if bare is _core.File:
        return _core.adopt_file(descriptor)
    assert label is not None
    return _core.open_envelope(descriptor)
