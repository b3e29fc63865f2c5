"""Counters that processes share: what one has written, all see, whatever becomes of it."""

from __future__ import annotations

import ctypes
import mmap
import os
import time

from tests.lanes.processes import TIMEOUT


class Tally:
    """Numbers of 64 bits on a page that children made by fork share with their parent.

    Writing one is a single store: a process that is killed has written it or not.
    """

    def __init__(self, count: int = 1) -> None:
        self._words = (ctypes.c_uint64 * count).from_buffer(mmap.mmap(-1, 8 * count))

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index] = value

    def __iter__(self):
        return iter(self._words)

    def wait(self, index: int, least: int) -> None:
        """Until the number has become ``least`` or more; gives the processor away meanwhile."""
        words = self._words
        if words[index] >= least:
            return
        deadline = time.monotonic() + TIMEOUT
        while words[index] < least:
            os.sched_yield()
            if time.monotonic() > deadline:
                raise AssertionError(f"number {index} is {words[index]} and never became {least}: {list(words)}")
