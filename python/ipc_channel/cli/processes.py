"""What ``/proc`` shows of processes: their open files, and who may not be looked at."""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_POLLED: Final = re.compile(r"tfd:.* data: *([0-9a-f]+) .*\bino:([0-9a-f]+)")


class InspectError(Exception):
    """The process cannot be inspected; the text says why, for the user."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process and its descriptors of one kernel object."""

    pid: int
    command: str
    fds: tuple[int, ...]
    """Ascending; empty if the process has the object mapped without a descriptor."""


@dataclass(frozen=True, slots=True)
class OpenMemory:
    """A memfd behind a descriptor."""

    name: str
    device: int
    inode: int
    size: int


@dataclass(slots=True)
class OpenFiles:
    """The sockets and memfds that one process holds."""

    sockets: dict[int, int] = field(default_factory=dict[int, int])
    """Inode by descriptor."""
    memories: dict[int, OpenMemory] = field(default_factory=dict[int, OpenMemory])
    """Memfd by descriptor."""
    polls: list[int] = field(default_factory=list[int])
    """Descriptors of epolls."""


@dataclass(slots=True)
class Holders:
    """Who holds which socket and which memfd, among the processes that this user may look at."""

    sockets: dict[int, list[Holder]]
    """By inode."""
    memories: dict[tuple[int, int], list[Holder]]
    """By device and inode."""
    memory_names: dict[tuple[int, int], str]
    """As given to memfd_create, by device and inode."""
    polls: dict[int, list[int]]
    """Descriptors of epolls, by process."""
    unreadable: int
    """Processes whose open files this user may not see."""


def open_files(pid: int) -> OpenFiles:
    """The sockets and memfds of a process.

    Raises:
        InspectError: there is no such process, it has ended, or this user may not look at it.
    """
    if not (_PROC / str(pid)).exists():
        raise InspectError(f"there is no process {pid}")
    try:
        if _is_zombie(pid):
            raise InspectError(f"process {pid} has ended; its parent has not collected it yet")
        return _open_files(pid)
    except PermissionError:
        raise InspectError(_why_unreadable(pid)) from None
    except (FileNotFoundError, ProcessLookupError):
        raise InspectError(f"process {pid} has just ended") from None


def holders(*, mapped: bool = True) -> Holders:
    """Walk all processes and note who holds what; ``mapped``: also memfds without a descriptor, which takes longer."""
    sockets: dict[int, list[Holder]] = defaultdict(list)
    memories: dict[tuple[int, int], list[Holder]] = defaultdict(list)
    names: dict[tuple[int, int], str] = {}
    polls: dict[int, list[int]] = {}
    unreadable = 0
    for pid in _pids():
        try:
            files = _open_files(pid)
            mappings = _mapped_memories(pid) if mapped else {}
        except PermissionError:
            unreadable += 1
            continue
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if not (files.sockets or files.memories or mappings):
            continue
        name = command(pid)
        polls[pid] = files.polls
        by_inode: dict[int, list[int]] = defaultdict(list)
        for fd, inode in files.sockets.items():
            by_inode[inode].append(fd)
        for inode, fds in by_inode.items():
            sockets[inode].append(Holder(pid, name, tuple(sorted(fds))))
        by_memory: dict[tuple[int, int], list[int]] = {key: [] for key in mappings}
        for fd, memory in files.memories.items():
            key = (memory.device, memory.inode)
            by_memory.setdefault(key, []).append(fd)
            names[key] = memory.name
        for key, fds in by_memory.items():
            memories[key].append(Holder(pid, name, tuple(sorted(fds))))
        names.update(mappings)
    return Holders(dict(sockets), dict(memories), names, polls, unreadable)


def command(pid: int) -> str:
    """The command line of a process as one printable line; the kernel's short name if it has none."""
    try:
        line = (_PROC / str(pid) / "cmdline").read_bytes()
        if not line.strip(b"\0"):
            line = (_PROC / str(pid) / "comm").read_bytes().strip()
    except OSError:
        return "?"
    text = line.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else "?" for character in text)


def polled(pid: int, fd: int) -> list[tuple[int, int]]:
    """What an epoll of a process watches: the data that it was given, and the inode. Empty if nobody tells."""
    try:
        lines = (_PROC / str(pid) / "fdinfo" / str(fd)).read_text().splitlines()
    except OSError:
        return []
    # tfd: DECIMAL events: HEX data: HEX pos:DECIMAL ino:HEX sdev:HEX
    matches = map(_POLLED.match, lines)
    return [(int(match[1], 16), int(match[2], 16)) for match in matches if match]


def own_pid(pid: int) -> int:
    """What the process takes for its own id: another one, if it is in a pid namespace below ours."""
    try:
        lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return pid
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), pid)


def _pids() -> Iterator[int]:
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            yield int(entry.name)


def _open_files(pid: int) -> OpenFiles:
    files = OpenFiles()
    folder = _PROC / str(pid) / "fd"
    for name in os.listdir(folder):
        path = folder / name
        try:
            target = os.readlink(path)
            if target.startswith("socket:["):
                files.sockets[int(name)] = int(target[len("socket:[") : -1])
            elif target == "anon_inode:[eventpoll]":
                files.polls.append(int(name))
            elif target.startswith("/memfd:"):
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode):
                    files.memories[int(name)] = OpenMemory(
                        _memory_name(target), status.st_dev, status.st_ino, status.st_size
                    )
        except FileNotFoundError:
            continue  # closed while we looked
    return files


def _memory_name(target: str) -> str:
    return target.removeprefix("/memfd:").removesuffix(" (deleted)")


def _mapped_memories(pid: int) -> dict[tuple[int, int], str]:
    """Names of the memfds in the address space, by device and inode: holding one needs no descriptor.

    Empty if this may not be seen, which happens even where the descriptors may.
    """
    found: dict[tuple[int, int], str] = {}
    try:
        lines = (_PROC / str(pid) / "maps").read_text(errors="surrogateescape").splitlines()
    except PermissionError:
        return found
    for line in lines:
        # address permissions offset major:minor inode path
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/memfd:"):
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            found[os.makedev(major, minor), int(fields[4])] = _memory_name(fields[5])
    return found


def _why_unreadable(pid: int) -> str:
    try:
        owner = os.stat(_PROC / str(pid)).st_uid
        real = _real_uid(pid)
    except OSError:
        return f"process {pid} has just ended"
    if os.geteuid() not in (0, real):
        return f"process {pid} belongs to another user (uid {real}): run this as that user or as root"
    if owner != os.geteuid():
        return (
            f"process {pid} is protected (not dumpable, as after a change of user or with file"
            " capabilities): run this as root"
        )
    return f"the kernel does not let this user look at the open files of process {pid}: run this as root"


def _real_uid(pid: int) -> int:
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    return -1


def _is_zombie(pid: int) -> bool:
    # The name in parentheses may itself hold parentheses and spaces: the state follows the last one.
    return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
