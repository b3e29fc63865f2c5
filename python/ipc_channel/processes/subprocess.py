"""Ends into a ``subprocess``: inherited descriptors, and a short text that says which they are."""

import contextlib
import os
import re
import stat
import threading
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar, cast, get_args, overload

from ipc_channel import _core
from ipc_channel.codecs.choice import UNSET, codec_of_end
from ipc_channel.codecs.kinds import LABEL_NAMES, Kind, describe, kind_of
from ipc_channel.errors import ClosedError, ConnectError, ProtocolError

__all__ = ["Passing", "inherit", "passing"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

_PREFIX: Final = "ipc-channel:"
_ITEM: Final = re.compile(r"(?P<direction>[sr])(?P<label>[0-9])\.(?P<descriptor>[0-9]+)\.(?P<inode>[0-9]+)", re.ASCII)


class Passing:
    """What :func:`passing` returns; ``fds`` and ``text`` mean something inside its ``with`` block."""

    def __init__(self, ends: "tuple[_core.SenderEnd | _core.ReceiverEnd, ...]") -> None:
        self._ends = ends
        self._descriptors: list[int] | None = None
        self._departures: list[_core.Departure] = []
        self._text = ""

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors to be inherited: the ``pass_fds`` of ``subprocess.Popen``."""
        return tuple(self._entered())

    @property
    def text(self) -> str:
        """What the child gives to :func:`inherit`: one word, fit for a command line or the environment."""
        self._entered()
        return self._text

    def __enter__(self) -> Self:
        if self._descriptors is not None:
            raise RuntimeError("this with block is running already")
        descriptors: list[int] = []
        items: list[str] = []
        try:
            for end in self._ends:
                descriptor = self._envelope(end)
                descriptors.append(descriptor)
                direction = "s" if isinstance(end, _core.SenderEnd) else "r"
                items.append(f"{direction}{end.label}.{descriptor}.{os.fstat(descriptor).st_ino}")
        except BaseException:
            _close_all(descriptors)
            self._abort()
            raise
        self._descriptors = descriptors
        self._text = _PREFIX + ",".join(items)
        if descriptors:
            _made.add(self._text)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _close_all(self._entered())
        self._descriptors = None
        _made.discard(self._text)
        if exc_type is not None:
            self._abort()
            return
        while self._departures:
            self._departures.pop().commit()

    def _envelope(self, end: "_core.SenderEnd | _core.ReceiverEnd") -> int:
        """A descriptor that holds the end."""
        if isinstance(end, _core.SenderEnd):
            return end.envelope()
        departure = end.depart()
        self._departures.append(departure)
        return os.dup(departure.fd)

    def _abort(self) -> None:
        while self._departures:
            self._departures.pop().abort()

    def _entered(self) -> list[int]:
        if self._descriptors is None:
            raise RuntimeError("use it in a with block: with passing(...) as passed: Popen(..., pass_fds=passed.fds)")
        return self._descriptors


def passing(*ends: "_core.SenderEnd | _core.ReceiverEnd") -> Passing:
    """Hand ends to a child that ``subprocess`` starts inside the ``with`` block.

    At the end of the block a sender is still there: the child has a duplicate. A receiver has moved, unless
    the block raised, as ``Popen`` does when there is no such program: then it is untouched.

    Args:
        ends: Senders and receivers of any kind, in the order in which :func:`inherit` gives them to the child.

    Raises:
        TypeError: Something else is among the ends.
        ValueError: A receiver is there twice.
        ClosedError: On entering the block: an end is closed, or was moved.

    >>> import subprocess, sys
    >>> import ipc_channel as ipc
    >>> program = '''
    ... import sys, ipc_channel as ipc
    ... [answers] = ipc.inherit(sys.argv[1], ipc.Sender[int])
    ... with answers:
    ...     answers.send(42)
    ... '''
    >>> sender, receiver = ipc.channel(int)
    >>> with ipc.passing(sender) as passed:
    ...     child = subprocess.Popen([sys.executable, "-c", program, passed.text], pass_fds=passed.fds)
    >>> sender.close()
    >>> with receiver, child:
    ...     print(list(receiver))
    [42]
    """
    seen: set[int] = set()
    for end in ends:
        if not isinstance(cast("object", end), _core.SenderEnd | _core.ReceiverEnd):
            raise TypeError(f"only senders and receivers can be passed to a subprocess, not {type(end).__name__}")
        if isinstance(end, _core.ReceiverEnd) and id(end) in seen:
            raise ValueError(f"{end!r} is there twice, but a receiver can only move to one place")
        seen.add(id(end))
    return Passing(ends)


class _Inherited(NamedTuple):
    """One end in a text."""

    sends: bool
    label: int
    descriptor: int
    inode: int


class _Wanted(NamedTuple):
    """One end as the child declares it."""

    form: Any
    kind: Kind
    codec: Any


@overload
def inherit(text: str, first: type[A], /) -> tuple[A]: ...
@overload
def inherit(text: str, first: type[A], second: type[B], /) -> tuple[A, B]: ...
@overload
def inherit(text: str, first: type[A], second: type[B], third: type[C], /) -> tuple[A, B, C]: ...
@overload
def inherit(text: str, first: type[A], second: type[B], third: type[C], fourth: type[D], /) -> tuple[A, B, C, D]: ...
@overload
def inherit(text: str, /, *types: type[Any]) -> tuple[Any, ...]: ...
def inherit(text: str, /, *types: Any) -> tuple[Any, ...]:
    """Take over the ends that the parent passed with :func:`passing`; once.

    Until then they would also be inherited by whatever this process starts, so it is best done first.

    Args:
        text: The parent's ``passing.text``, from the command line or the environment.
        types: What each end is, in the parent's order: ``Sender[Job]``, ``Receiver[Job]``, ``BytesSender``,
            ``BytesReceiver``, ``OpaqueSender``, ``OpaqueReceiver``; a plain ``Sender`` or ``Receiver`` is that
            of an untyped channel, which unpickles what its peers send.

    Returns:
        The ends, always as a tuple.

    Raises:
        ValueError: It is no such text, or it holds more or fewer ends.
        TypeError: An end is of another kind than declared.
        ClosedError: The text was used already.
        ConnectError: The descriptors are not there: ``pass_fds`` was forgotten, or they were closed.
        ProtocolError: A descriptor is there and is no end of a channel.

    For an example see :func:`passing`.
    """
    inherited = _parse(text)
    if len(inherited) != len(types):
        raise ValueError(f"{text!r} holds {len(inherited)} ends, but {len(types)} types were given")
    wanted = [_wanted(form, end.label) for form, end in zip(types, inherited, strict=True)]
    with _lock:
        if text in _made:
            raise ValueError(f"{text!r} was made by this process: it is for the child, which inherits the ends")
        if text in _used:
            raise ClosedError(f"{text!r} was inherited already; an end has one owner, so pass it on instead")
        for position, (end, want) in enumerate(zip(inherited, wanted, strict=True), start=1):
            _check_kind(position, end, want)
            _check_descriptor(text, end)
        _used.add(text)
        return _adopt(inherited, wanted)


_used: set[str] = set()
_made: set[str] = set()
"""The texts of the ``with`` blocks that are running: their descriptors are ours."""
_lock = threading.Lock()


def _parse(text: str) -> list[_Inherited]:
    items = text.removeprefix(_PREFIX).split(",")
    matches = [_ITEM.fullmatch(item) for item in items]
    if text == _PREFIX:
        return []
    if not text.startswith(_PREFIX) or None in matches:
        raise ValueError(f"{text!r} is not the text of ipc_channel.passing()")
    return [
        _Inherited(match["direction"] == "s", int(match["label"]), int(match["descriptor"]), int(match["inode"]))
        for match in matches
        if match is not None
    ]


def _wanted(form: Any, label: int) -> _Wanted:
    kind = kind_of(form)
    if kind is None or not issubclass(kind.made_from, _core.SenderEnd | _core.ReceiverEnd):
        raise TypeError(f"{describe(form)} is not a type of ends, such as Sender[int] or BytesReceiver")
    codec = kind.codec
    if kind.generic:
        (parameter,) = get_args(form) or (Any,)
        codec = codec_of_end(UNSET if parameter is Any else parameter, label)
    return _Wanted(form, kind, codec)


def _check_kind(position: int, end: _Inherited, want: _Wanted) -> None:
    sends = issubclass(want.kind.made_from, _core.SenderEnd)
    if sends != end.sends or (want.codec is not None and want.codec.label != end.label):
        what = LABEL_NAMES.get(end.label, "unknown messages")
        raise TypeError(
            f"end {position} is a {'sender' if end.sends else 'receiver'} of {what}, not a {describe(want.form)}"
        )


def _check_descriptor(text: str, end: _Inherited) -> None:
    # The inode number tells the end from whatever else may have got the same descriptor here.
    try:
        status = os.fstat(end.descriptor)
    except (OSError, OverflowError):
        status = None
    if status is None or not stat.S_ISSOCK(status.st_mode) or status.st_ino != end.inode:
        raise ConnectError(
            f"descriptor {end.descriptor} of {text!r} was not inherited: start this process inside the with block, "
            "with pass_fds=passing.fds"
        )


def _adopt(inherited: list[_Inherited], wanted: list[_Wanted]) -> tuple[Any, ...]:
    with contextlib.ExitStack() as undo:
        left = [end.descriptor for end in inherited]
        undo.callback(_close_all, left)
        made: list[Any] = []
        for end, want in zip(inherited, wanted, strict=True):
            handle: Any = _core.open_envelope(left[0])
            del left[0]  # it has been taken over
            if isinstance(handle, _core.SenderEnd) != end.sends or handle.label != end.label:
                handle.close()
                raise ProtocolError(f"descriptor {end.descriptor} brought another end than the text says")
            public = want.kind.cls(handle) if want.codec is None else want.kind.cls(handle, want.codec)
            undo.callback(public.close)
            made.append(public)
        undo.pop_all()
    return tuple(made)


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
