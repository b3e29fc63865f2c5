"""What the package adds to the start of a program."""

import statistics
import subprocess
import sys
import time
from typing import Final

from ipc_channel.bench.subject import OURS, Effort, Figures, Metric, Subject
from ipc_channel.bench.targets import fixed
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_RUNS: Final = 10
_QUICK_RUNS: Final = 2
_TIMEOUT: Final = 30.0


def _start(source: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", source], check=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
    return time.perf_counter() - start


def _importing(effort: Effort) -> Figures:
    _start("import ipc_channel")  # compiles to bytecode whatever is not, and warms the file cache
    with_it: list[float] = []
    without: list[float] = []
    for _ in range(_QUICK_RUNS if effort.quick else _RUNS):
        without.append(_start("pass"))
        with_it.append(_start("import ipc_channel"))
    bare = statistics.median(without)
    return {"added": max(statistics.median(with_it) - bare, 0.0), "bare interpreter": bare}


SUBJECTS: Final = (
    Subject(
        key="import",
        name="import ipc_channel",
        family="Starting",
        what="A program that imports the package and ends, less a program that does nothing; medians of ten in turn.",
        metrics=[Metric("added", Unit.TIME), Metric("bare interpreter", Unit.TIME)],
        measures={OURS: _importing},
        targets=[fixed("added", 40e-3, Unit.TIME)],
    ),
)
