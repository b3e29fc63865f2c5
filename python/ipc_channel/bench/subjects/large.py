"""Large arrays."""

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ipc_channel.bench.measuring import check, seconds_each, seconds_each_alone
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.rivals.libraries import OURS_RIVAL, PIPE, QUEUE, ZEROMQ
from ipc_channel.bench.rivals.rival import Kind, ReceivePort, Rival
from ipc_channel.bench.subject import Effort, Figures, Metric, Subject, Unavailable
from ipc_channel.bench.targets import beside
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_ITEMS: Final = (64 << 20) // 8
_QUICK_ITEMS: Final = (1 << 20) // 8
_PAGE: Final = 4096 // 8
"""Items to the next page."""
_LOOK, _READ_PAGES = "received", "and each page read"


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise Unavailable("numpy is not installed") from None


def _arrays(rival: Rival, effort: Effort) -> Figures:
    numpy = _numpy()
    items = _QUICK_ITEMS if effort.quick else _ITEMS
    # What a library does best with an array: most of them take any object, ZeroMQ takes its memory.
    kind = Kind.BYTES if rival is ZEROMQ else Kind.OBJECT
    sending, receiving = rival.link(kind, items * 8)
    array = numpy.arange(items, dtype=numpy.float64)
    try:
        with peer(_receive, receiving, kind) as control:
            receiving.close()
            control.recv()
            send = sending.open()
            control.send(1)
            control.send("sum")
            send(array)
            check(control.recv() == float(array.sum()), "the array differs")

            def run(how: str, count: int) -> float:
                start = time.perf_counter()
                control.send(count)
                control.send(how)
                for _ in range(count):
                    send(array)
                check(control.recv() == (items, 0.0, items - 1.0), "the array differs")
                return time.perf_counter() - start

            return {
                how: items * 8 / seconds_each(effort.seconds / 2, partial(run, how), first=1)
                for how in (_LOOK, _READ_PAGES)
            }
    finally:
        sending.close()
        receiving.close()


def _receive(control: Control, receiving: ReceivePort, kind: Kind) -> None:
    numpy = _numpy()
    receive: Callable[[], Any] = receiving.open()
    try:
        control.send(True)
        while True:
            count, how = control.recv(), control.recv()
            answer: Any = None
            for _ in range(count):
                array = receive()
                if kind is Kind.BYTES:
                    array = numpy.frombuffer(array, numpy.float64)
                answer = (len(array), float(array[0]), float(array[-1]))
                if how == _READ_PAGES:
                    array[::_PAGE].sum()
                elif how == "sum":
                    answer = float(array.sum())
                del array
            control.send(answer)
    finally:
        receiving.close()


def _memcpy(effort: Effort) -> Figures:
    numpy = _numpy()
    items = _QUICK_ITEMS if effort.quick else _ITEMS
    array = numpy.arange(items, dtype=numpy.float64)
    copy = numpy.zeros_like(array)
    copy[:] = 1.0  # its pages are there before the clock starts
    numpy.copyto(copy, array)
    check(bool((copy == array).all()), "the copy differs")
    each = seconds_each_alone(effort.seconds / 2, partial(numpy.copyto, copy, array))
    return {_LOOK: items * 8 / each}


SUBJECTS: Final = (
    Subject(
        key="numpy-64mib",
        name="64 MiB numpy array, one way",
        family="Large data",
        what="A loop of send of one array of float64; the receiver looks at the first and the last item, or reads an"
        " item of each page. memcpy: numpy.copyto of the same array into memory that is there already."
        " pyzmq sends the array's memory without a pickle.",
        metrics=[Metric(_LOOK, Unit.THROUGHPUT), Metric(_READ_PAGES, Unit.THROUGHPUT)],
        measures={
            **{rival.key: partial(_arrays, rival) for rival in (OURS_RIVAL, PIPE, QUEUE, ZEROMQ)},
            "memcpy": _memcpy,
        },
        targets=[beside(_LOOK, Unit.THROUGHPUT, "memcpy", "memcpy", 0.7)],
        chart=[_LOOK],
    ),
)
