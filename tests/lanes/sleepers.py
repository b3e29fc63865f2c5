"""Threads that sleep, as the kernel sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SAMPLES = 5
"""A thread that is asleep so many times, without having woken up between, waits for something."""


def when_asleep(thread: int, action: Callable[[], object]) -> threading.Thread:
    """Do something, in another thread, when the thread with that native identity has gone to sleep."""

    def run() -> None:
        last = ""
        same = 0
        while same < SAMPLES:
            with open(f"/proc/self/task/{thread}/status") as status:
                lines = [line for line in status if line.startswith(("State:", "voluntary"))]
            now = "".join(lines)
            same = same + 1 if now == last and "sleeping" in now else 0
            last = now
            time.sleep(0.001)
        action()

    started = threading.Thread(target=run)
    started.start()
    return started
