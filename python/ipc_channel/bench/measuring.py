"""How long to measure, and what came of it."""

import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = [
    "Wrong",
    "available_memory",
    "check",
    "now",
    "quantile",
    "raise_descriptor_limit",
    "seconds_each",
    "seconds_each_alone",
    "seconds_each_in_turn",
]

_SEARCH_SHARE: Final = 8.0
"""The part of the time that the search for the right count may take."""

now: Final = time.monotonic_ns
"""Nanoseconds of the clock that all processes of a machine share."""


class Wrong(Exception):
    """What came through is not what was sent."""


def check(right: bool, what: str) -> None:
    """Raise Wrong unless ``right``; a plain assert would be gone under ``python -O``."""
    if not right:
        raise Wrong(what)


def seconds_each(seconds: float, run: Callable[[int], float], first: int = 16) -> float:
    """Run with growing counts until one takes about ``seconds``; the seconds of each of its operations.

    Args:
        seconds: How long the run that counts should take.
        run: Does the given number of operations and returns how many seconds they took.
        first: The count to begin with.
    """
    count = first
    while True:
        took = max(run(count), 1e-9)
        if took >= seconds / _SEARCH_SHARE:
            break
        count *= 4
    count = max(1, int(count * seconds / took))
    return run(count) / count


def seconds_each_in_turn(
    seconds: float, runs: Mapping[str, Callable[[int], float]], turns: int = 5
) -> dict[str, float]:
    """As :func:`seconds_each` for each of ``runs``, all of them within ``seconds`` and several times by turns.

    For figures that are compared with each other: where the machine is slower for a while, it is so for all of them.
    Each is the median of its turns.
    """
    share = seconds / turns / len(runs)
    all_turns = [{name: seconds_each(share, run) for name, run in runs.items()} for _ in range(turns)]
    return {name: statistics.median(turn[name] for turn in all_turns) for name in runs}


def seconds_each_alone(seconds: float, operation: Callable[[], object]) -> float:
    """As :func:`seconds_each`, for operations that need no second process."""

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            operation()
        return time.perf_counter() - start

    return seconds_each(seconds, run, first=1)


def quantile(samples: Sequence[int], share: float) -> int:
    """The value that the given share of ``samples`` does not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, math.floor(len(ordered) * share))]


def raise_descriptor_limit(wanted: int) -> bool:
    """Allow this process as many open files as it may have; whether these are ``wanted``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard == resource.RLIM_INFINITY or hard >= wanted


def available_memory() -> int:
    """Bytes that programs can get without swapping, as the kernel estimates it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")
