"""What the memory of a lane tells whoever looks at it from outside: the words of its first page.

The layout is that of ``crates/transport/src/lane/layout.rs``. The two sides neither wait for a look nor notice it.
Any process that holds the file can write there: nothing in it is believed before a check.
"""

import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ipc_channel.cli.processes import Holder, own_pid

NAME: Final = "ipc-channel-lane"
"""Of the memory files of lanes, as given to memfd_create."""

_PRODUCERS_WORDS: Final = struct.Struct("=QQQ")
"""At the beginning: TAIL (the low bits are flags), SENT, PRODUCER."""
_UNIT: Final = 16
_CONSUMERS_AT: Final = 128
_CONSUMERS_WORDS: Final = struct.Struct("=QQ112xQ")
"""HEAD, CONSUMER, and 128 bytes further on TAKEN, shifted by one for a flag."""
_BEYOND_ALL_COUNTS: Final = 1 << 62
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class LaneMemory:
    """A lane at one moment. None stands for what is damaged, or cannot be read."""

    sent: int | None
    """Messages published since the lane was made."""
    waiting: int | None
    """Messages published and not taken, as far as the consumer has told."""
    unread: int | None
    """Bytes published and not released, as far as the consumer has told."""
    memory: int | None
    """Bytes of the file that have pages."""
    producer: int | None
    """The process that writes, by the id that it has for itself."""
    consumer: int | None
    """The process that reads, likewise; 0 if no process has found the lane yet."""


UNREADABLE: Final = LaneMemory(None, None, None, None, None, None)


def read_lane(who: Iterable[Holder], inode: int) -> LaneMemory:
    """Read the lane with that inode through a descriptor of one of its holders."""
    for holder in who:
        for fd in holder.fds:
            try:
                return _read(holder.pid, fd, inode)
            except OSError:
                continue  # closed while we looked, or the process has ended
    return UNREADABLE


def side(process: int | None, who: Iterable[Holder]) -> Holder | None:
    """Which of the holders is the process that the lane names."""
    return next((holder for holder in who if process and own_pid(holder.pid) == process), None)


def _read(pid: int, fd: int, inode: int) -> LaneMemory:
    # First without opening what is there, which may be something else by now: opening a device has effects.
    place = os.open(f"/proc/{pid}/fd/{fd}", os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(place)
        if not stat.S_ISREG(status.st_mode) or status.st_ino != inode:
            raise FileNotFoundError("another file is there now")
        file = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        return _look(file)
    finally:
        os.close(file)


def _look(file: int) -> LaneMemory:
    lane = UNREADABLE
    # What is out of order in one look may have been preempted between its reads; in all of them it is damaged.
    for _ in range(_ATTEMPTS):
        # The consumer's words first: what it has done was published before, so it cannot seem to be ahead.
        second = os.pread(file, _CONSUMERS_WORDS.size, _CONSUMERS_AT)
        first = os.pread(file, _PRODUCERS_WORDS.size, 0)
        status = os.fstat(file)
        memory = status.st_blocks * 512
        if len(first) < _PRODUCERS_WORDS.size or len(second) < _CONSUMERS_WORDS.size:
            return LaneMemory(None, None, None, memory, None, None)
        tail, sent, producer = _PRODUCERS_WORDS.unpack(first)
        head, consumer, taken = _CONSUMERS_WORDS.unpack(second)
        unread = tail // _UNIT * _UNIT - head
        waiting = sent - (taken >> 1)
        lane = LaneMemory(
            sent if sent < _BEYOND_ALL_COUNTS else None,
            waiting if sent < _BEYOND_ALL_COUNTS and waiting >= 0 else None,
            # Unread records lie side by side in the file, which never shrinks.
            unread if 0 <= unread <= status.st_size else None,
            memory,
            producer or None,
            consumer,
        )
        if None not in (lane.sent, lane.waiting, lane.unread):
            break
    return lane
