"""One look at all lanes and channels of the processes that this user may look at."""

import socket
import time
from dataclasses import dataclass

from ipc_channel.cli.lanes import NAME, LaneMemory, read_lane, side
from ipc_channel.cli.processes import Holder, Holders, holders, polled
from ipc_channel.cli.sock_diag import RCV_SHUTDOWN, SEND_SHUTDOWN, UnixSocket, unix_sockets


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane that some process has open."""

    state: LaneMemory
    sender: Holder | None
    """None if no process that can be seen writes there."""
    receiver: Holder | None
    """Likewise."""


@dataclass(frozen=True, slots=True)
class Socket:
    """A channel of which only the socket is used."""

    senders: tuple[Holder, ...]
    receivers: tuple[Holder, ...]
    unread: int


@dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment."""

    at: float
    """On the monotonic clock, in seconds."""
    lanes: dict[tuple[int, int], Lane]
    """By the memory file's device and inode."""
    sockets: dict[int, Socket]
    """By the inode of the receiver's socket."""


def look() -> Look:
    """Look at everything. What disappears meanwhile, and what this user may not see, is left out."""
    everybody = holders(mapped=False)
    at = time.monotonic()
    lanes: dict[tuple[int, int], Lane] = {}
    for key, name in everybody.memory_names.items():
        if name == NAME:
            who = everybody.memories[key]
            state = read_lane(who, key[1])
            lanes[key] = Lane(state, side(state.producer, who), side(state.consumer, who))
    return Look(at, lanes, _sockets(everybody))


def _sockets(everybody: Holders) -> dict[int, Socket]:
    try:
        sockets = unix_sockets()
    except OSError:
        return {}  # a sandbox: lanes can be seen all the same
    found: dict[int, Socket] = {}
    for inode in everybody.sockets:
        entry = sockets.get(inode)
        if entry is None or entry.listening or entry.kind != socket.SOCK_SEQPACKET:
            continue
        if entry.shutdown == RCV_SHUTDOWN and (peer := sockets.get(entry.peer)):
            receiving = peer
        elif entry.shutdown == SEND_SHUTDOWN or (entry.shutdown and entry.unread):
            receiving = entry
        else:
            continue
        if receiving.inode not in found and not _has_more(receiving, everybody):
            found[receiving.inode] = Socket(
                tuple(everybody.sockets.get(receiving.peer, ())),
                tuple(everybody.sockets.get(receiving.inode, ())),
                receiving.unread,
            )
    return found


def _has_more(receiving: UnixSocket, everybody: Holders) -> bool:
    """Whether the receiver has connections or lanes besides its socket, in which nothing waits any more.

    It watches all of them with one epoll: the socket under the number 0, doors under 1, and these from 2 on.
    """
    if receiving.unread:
        return False
    for holder in everybody.sockets.get(receiving.inode, ()):
        for fd in everybody.polls.get(holder.pid, ()):
            watched = polled(holder.pid, fd)
            if (0, receiving.inode) in watched and any(number > 1 for number, _ in watched):
                return True
    return False
