"""Memory files that processes hold, as the kernel counts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable


def memory_held(pids: Iterable[int] = ()) -> int:
    """Bytes of all memory files that this process and those others have open or mapped; each file once.

    Of a file that is mapped and no longer open, where the kernel does not let us ask, the mapped pages count.
    """
    blocks: dict[tuple[int, int], int] = {}
    pages: dict[tuple[int, int], int] = {}
    for pid in (os.getpid(), *pids):
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if os.readlink(path).startswith("/memfd:"):
                    _count(blocks, path)
        for file, span, resident in _mapped(pid):
            with contextlib.suppress(PermissionError, FileNotFoundError, ProcessLookupError):
                _count(blocks, f"/proc/{pid}/map_files/{span}")
            pages[file] = pages.get(file, 0) + resident
    return sum(blocks.values()) + sum(size for file, size in pages.items() if file not in blocks)


def _count(blocks: dict[tuple[int, int], int], path: str) -> None:
    status = os.stat(path)
    blocks[status.st_dev, status.st_ino] = status.st_blocks * 512


def _mapped(pid: int) -> list[tuple[tuple[int, int], str, int]]:
    """Of each mapping of a memory file: the file, its addresses, and its bytes in memory."""
    found: list[tuple[tuple[int, int], str, int]] = []
    current: tuple[tuple[int, int], str] | None = None
    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            fields = line.split(maxsplit=5)
            if not fields[0].endswith(":"):
                current = None
                if len(fields) == 6 and fields[5].startswith("/memfd:"):
                    major, minor = (int(part, 16) for part in fields[3].split(":"))
                    current = (os.makedev(major, minor), int(fields[4])), fields[0]
            elif fields[0] == "Rss:" and current is not None:
                found.append((*current, int(fields[1]) * 1024))
    return found
