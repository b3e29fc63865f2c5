"""What a process holds: descriptors, memory-file mappings, children, threads. A leak is what a test left more of."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

GRACE: Final = 3.0
"""Seconds that something on its way out (a thread that has been told to end, say) is given."""

LONG_LIVED_THREADS: Final = ("Trio thread",)
"""Beginnings of names of threads that their libraries keep for reuse."""


@dataclass(frozen=True)
class Held:
    """A snapshot of one process."""

    descriptors: frozenset[tuple[int, str]]
    mappings: Counter[str]
    children: dict[int, str]
    threads: frozenset[tuple[int, str]]

    def more_than(self, before: Held) -> list[str]:
        """One line for each thing that is here and was not there."""
        lines = [f"descriptor {number}: {target}" for number, target in sorted(self.descriptors - before.descriptors)]
        lines += [f"{n} × mapping {name}" for name, n in sorted((self.mappings - before.mappings).items())]
        lines += [f"child {pid} ({self.children[pid]})" for pid in sorted(self.children.keys() - before.children)]
        lines += [f"thread {number}: {name}" for number, name in sorted(self.threads - before.threads)]
        return lines


def take() -> Held:
    """What this process holds now, less what multiprocessing and trio keep until the end on purpose."""
    kept_descriptors, kept_children, kept_threads = _kept()
    return Held(
        descriptors=frozenset(item for item in _descriptors() if item[0] not in kept_descriptors),
        mappings=_mappings(),
        children={pid: state for pid, state in _children().items() if pid not in kept_children},
        threads=frozenset(item for item in _threads() if item[0] not in kept_threads),
    )


def leaked_since(before: Held, grace: float = GRACE) -> list[str]:
    """What is held beyond ``before`` even after a garbage collection and a moment of grace; empty when nothing is."""
    lines = take().more_than(before)
    deadline = time.monotonic() + grace
    while lines and time.monotonic() < deadline:
        gc.collect()
        lines = take().more_than(before)
        if lines:
            time.sleep(0.02)
    return lines


def _descriptors() -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))
    # The descriptor that listed the folder is closed again by now. The standard streams are pytest's, which puts
    # files of its own in their place, and is not consistent about it when a run stops early.
    return {(number, target) for number, target in found if number > 2 and not target.endswith(f"/{os.getpid()}/fd")}


def _mappings() -> Counter[str]:
    with open("/proc/self/maps") as maps:
        return Counter(line.split(maxsplit=5)[5].strip() for line in maps if "/memfd:" in line)


def kill_children(before: Held) -> None:
    """Kill the children that are not in ``before``: nothing then waits for them, neither a test nor the exit."""
    for pid in take().children.keys() - before.children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children() -> dict[int, str]:
    found = _direct_children()
    # Those of multiprocessing's fork server are its children, not ours.
    module: Any = sys.modules.get("multiprocessing.process")
    for process in tuple(module._children) if module is not None else ():
        if process._popen is not None and process._popen.method == "forkserver":
            found[process.pid] = "alive" if process.exitcode is None else "not joined"
    return found


def _direct_children() -> dict[int, str]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    found: dict[int, str] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{name}/stat") as stat:
            # The name in brackets may hold anything, so the fields are counted from the last bracket.
            state, parent = stat.read().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid():
                found[int(name)] = "zombie" if state == "Z" else "alive"
    return found


def _threads() -> set[tuple[int, str]]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: set[tuple[int, str]] = set()
    for number in os.listdir("/proc/self/task"):
        # A thread that Python does not know is one of the extension module's.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{number}/comm") as comm:
            found.add((int(number), names.get(int(number)) or f"native {comm.read().strip()}"))
    return found


def _kept() -> tuple[set[int], set[int], set[int]]:
    """Descriptors, children and threads that live until the end of the process by their libraries' design."""
    descriptors: set[int | None] = set()
    children: set[int | None] = set()
    threads = {t.native_id for t in threading.enumerate() if t.name.startswith(LONG_LIVED_THREADS)}
    # Looked up, not imported: nothing is kept by a module that nobody uses.
    tracker: Any = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    if tracker is not None:
        descriptors.add(tracker._fd)
        children.add(tracker._pid)
    forkserver: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if forkserver is not None:
        descriptors.add(forkserver._forkserver_alive_fd)
        children.add(forkserver._forkserver_pid)
    sharer: Any = getattr(sys.modules.get("multiprocessing.resource_sharer"), "_resource_sharer", None)
    if sharer is not None and sharer._listener is not None:
        descriptors.add(sharer._listener._listener._socket.fileno())
        threads.add(sharer._thread.native_id)
    return (
        {number for number in descriptors if number is not None},
        {number for number in children if number is not None},
        {number for number in threads if number is not None},
    )
