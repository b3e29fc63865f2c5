"""Which channel ends a process holds, and who holds the other ends: sock_diag, ``/proc`` and lanes put together.

The transport shuts the sender's socket down for reading, so the kernel itself knows the direction of a
channel: that is how ends are told from other seqpacket sockets, and senders from receivers.
"""

import os
import re
import socket
from dataclasses import dataclass
from typing import Final, Literal

from ipc_channel.cli.lanes import NAME as LANE_NAME
from ipc_channel.cli.lanes import read_lane, side
from ipc_channel.cli.processes import (
    Holder,
    Holders,
    InspectError,
    OpenFiles,
    command,
    holders,
    open_files,
)
from ipc_channel.cli.sock_diag import RCV_SHUTDOWN, SEND_SHUTDOWN, UnixSocket, unix_sockets

_MEMORY_PREFIX: Final = "ipc-channel-"
"""What the names of the transport's memory files begin with."""
_SERVER_NAME: Final = re.compile(rb"/proc/self/fd/[0-9]+/[0-9a-f]{24}\0?|\0ipc-channel-[0-9]+-[0-9]+-[0-9a-f]{24}")
"""What one-shot servers are bound to: through a private folder's descriptor, or an abstract name."""

Kind = Literal["sender", "receiver", "sender or receiver"]
Direction = Literal["sends", "receives", "sends and receives", "unknown"]
OtherEnd = Literal["held", "not visible", "not accepted", "gone"]


@dataclass(frozen=True, slots=True)
class End:
    """A channel end behind one descriptor of the process."""

    fd: int
    kind: Kind
    inode: int
    also_held_by: tuple[Holder, ...]
    """Other processes that hold this same end: children made by fork, or owners of duplicates."""
    other_end: OtherEnd
    other_inode: int
    other_held_by: tuple[Holder, ...]
    unread: int | None
    """Bytes of the packets that wait in the channel; None if nothing can be known any more."""


@dataclass(frozen=True, slots=True)
class Server:
    """A one-shot server that has not served yet."""

    fd: int
    inode: int
    waiting: int
    """Clients that have connected and wait to be accepted."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Memory through which one process sends to one receiver, and which this process has open."""

    fds: tuple[int, ...]
    direction: Direction
    """What the process does with it; ``"unknown"`` if it is not the one that the lane names."""
    other: Holder | None
    """The process at the other side, this one included; None if none that can be seen is there."""
    waiting: int | None
    """Messages sent and not taken, as far as the receiver has told; None if that cannot be known."""
    unread: int | None
    """Bytes sent and not read, likewise."""
    memory: int | None
    """Bytes of memory that it takes."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the package that the process has open or mapped."""

    fds: tuple[int, ...]
    kind: str
    """``"memory"`` for a SharedMemory, ``"message"`` for a large message or buffer."""
    size: int | None
    """In bytes; None if it is only mapped, without a descriptor that would tell."""
    also_held_by: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What :func:`survey` found."""

    pid: int
    command: str
    ends: tuple[End, ...]
    lanes: tuple[Lane, ...]
    servers: tuple[Server, ...]
    memories: tuple[Memory, ...]
    unreadable: int
    """Processes that this user may not look at: they may hold ends without being named."""


def survey(pid: int) -> Survey:
    """Look at one process.

    Raises:
        InspectError: there is no such process, this user may not look at it, or the kernel tells nothing.
    """
    files = open_files(pid)
    everybody = holders()
    try:
        sockets = unix_sockets()
    except OSError as error:
        raise InspectError(f"the kernel does not list Unix sockets here (sock_diag): {error}") from error
    ends: list[End] = []
    servers: list[Server] = []
    unlisted = 0
    for fd, inode in sorted(files.sockets.items()):
        entry = sockets.get(inode)
        if entry is None:
            unlisted += 1
        elif _is_server(entry):
            servers.append(Server(fd, inode, entry.unread))
        elif _is_end(entry):
            ends.append(_end(pid, fd, entry, sockets, everybody))
    if unlisted and not ends and not servers and _another_network_namespace(pid):
        raise InspectError(
            f"process {pid} is in another network namespace, whose sockets are not listed here:"
            f" enter it first (nsenter --target {pid} --net)"
        )
    return Survey(
        pid,
        command(pid),
        tuple(ends),
        _lanes(pid, files, everybody),
        tuple(servers),
        _memories(pid, files, everybody),
        everybody.unreadable,
    )


def _is_server(entry: UnixSocket) -> bool:
    return entry.listening and entry.kind == socket.SOCK_SEQPACKET and _SERVER_NAME.fullmatch(entry.name) is not None


def _is_end(entry: UnixSocket) -> bool:
    return not entry.listening and entry.kind == socket.SOCK_SEQPACKET and entry.shutdown != 0


def _end(pid: int, fd: int, entry: UnixSocket, sockets: dict[int, UnixSocket], everybody: Holders) -> End:
    peer = sockets.get(entry.peer)
    other: OtherEnd
    unread: int | None
    if entry.shutdown == RCV_SHUTDOWN:
        kind: Kind = "sender"
        unread = peer.unread if peer else None
    elif entry.shutdown == SEND_SHUTDOWN:
        kind = "receiver"
        unread = entry.unread
    else:
        # The death of one side shuts the other down both ways, so the direction is forgotten; but only
        # a receiver has something to read.
        kind = "receiver" if entry.unread else "sender or receiver"
        unread = entry.unread or None
    other_held_by = tuple(everybody.sockets.get(entry.peer, ())) if entry.peer else ()
    if other_held_by:
        other = "held"
    elif entry.shutdown == RCV_SHUTDOWN | SEND_SHUTDOWN:
        other = "gone"
    else:
        other = "not visible" if entry.peer else "not accepted"
    also = _others(pid, everybody.sockets.get(entry.inode, []))
    return End(fd, kind, entry.inode, also, other, entry.peer, other_held_by, unread)


def _lanes(pid: int, files: OpenFiles, everybody: Holders) -> tuple[Lane, ...]:
    own: dict[tuple[int, int], list[int]] = {}
    for fd, memory in sorted(files.memories.items()):
        if memory.name == LANE_NAME:
            own.setdefault((memory.device, memory.inode), []).append(fd)
    return tuple(_lane(pid, key, tuple(fds), everybody) for key, fds in own.items())


def _lane(pid: int, key: tuple[int, int], fds: tuple[int, ...], everybody: Holders) -> Lane:
    who = everybody.memories.get(key, [])
    state = read_lane(who, key[1])
    producer, consumer = side(state.producer, who), side(state.consumer, who)
    sends, receives = (at is not None and at.pid == pid for at in (producer, consumer))
    direction: Direction = "unknown"
    other: Holder | None = None
    if sends:
        direction, other = ("sends and receives" if receives else "sends"), consumer
    elif receives:
        direction, other = "receives", producer
    return Lane(fds, direction, other, state.waiting, state.unread, state.memory)


def _memories(pid: int, files: OpenFiles, everybody: Holders) -> tuple[Memory, ...]:
    sizes = {(memory.device, memory.inode): memory for memory in files.memories.values()}
    found: list[Memory] = []
    for key, who in everybody.memories.items():
        own = next((holder for holder in who if holder.pid == pid), None)
        if own is None:
            continue
        memory = sizes.get(key)
        name = memory.name if memory else everybody.memory_names.get(key, "")
        if name.startswith(_MEMORY_PREFIX) and name != LANE_NAME:
            found.append(
                Memory(own.fds, name.removeprefix(_MEMORY_PREFIX), memory.size if memory else None, _others(pid, who))
            )
    return tuple(sorted(found, key=lambda memory: (memory.fds, memory.kind)))


def _others(pid: int, who: list[Holder]) -> tuple[Holder, ...]:
    return tuple(holder for holder in who if holder.pid != pid)


def _another_network_namespace(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False
