"""One way: messages, or their bytes, from one process to another in a second."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import Any, Final

import msgspec

from ipc_channel.bench.measuring import check, seconds_each, seconds_each_in_turn
from ipc_channel.bench.messages import SMALL, Item, sample
from ipc_channel.bench.peer import Control, peer
from ipc_channel.bench.rivals.libraries import CLOUDTOID, FASTER_FIFO, LIBRARIES, OURS_RIVAL, PIPE
from ipc_channel.bench.rivals.rival import Kind, NotCarried, ReceivePort, Rival
from ipc_channel.bench.rivals.rust import by_rust_peer
from ipc_channel.bench.subject import Effort, Figures, Measure, Metric, Subject, Unavailable
from ipc_channel.bench.targets import beside, fastest_peer, fixed
from ipc_channel.bench.units import Unit

__all__ = ["SUBJECTS"]

_CHECKED: Final = 500
"""Messages that differ from each other, sent and compared before anything is timed."""
_CHECKED_LARGE: Final = 20
_LARGE: Final = 1 << 20


def _one_way(rival: Rival, kind: Kind, size: int, effort: Effort) -> float:
    """Seconds for each message."""
    try:
        sending, receiving = rival.link(kind, size)
    except NotCarried:
        raise Unavailable("does not carry such messages") from None
    try:
        with peer(_receive, receiving, kind, size) as control:
            receiving.close()
            control.recv()  # both ends are there
            send = sending.open()
            checked = _CHECKED if size <= SMALL else _CHECKED_LARGE
            control.send(checked)
            for number in range(checked):
                send(sample(kind, number, size))
            check(control.recv(), "messages differ")
            message = sample(kind, 0, size)

            def run(count: int) -> float:
                start = time.perf_counter()
                control.send(count)
                for _ in repeat(None, count):
                    send(message)
                check(control.recv(), "the last message differs")
                return time.perf_counter() - start

            return seconds_each(effort.seconds, run)
    finally:
        sending.close()
        receiving.close()


def _receive(control: Control, receiving: ReceivePort, kind: Kind, size: int) -> None:
    receive = receiving.open()
    try:
        control.send(True)
        checked = control.recv()
        right = True
        for number in range(checked):
            right = receive() == sample(kind, number, size) and right
        control.send(right)
        expected = sample(kind, 0, size)
        while True:
            count = control.recv()
            message = None
            for message in receiving.messages(count):  # noqa: B007 - the loop of a user, empty
                pass
            control.send(message == expected)
    finally:
        receiving.close()


def _batched(rival: Rival, effort: Effort) -> float:
    """Seconds for each message of a batch."""
    sending, receiving = rival.link(Kind.BYTES, SMALL)
    try:
        with peer(_receive_batches, receiving) as control:
            receiving.close()
            control.recv()  # both ends are there
            send_many = sending.open_batch()
            control.send(_CHECKED)
            send_many(sample(Kind.BYTES, number) for number in range(_CHECKED))
            check(control.recv(), "messages differ")
            message = sample(Kind.BYTES, 0)

            def run(count: int) -> float:
                start = time.perf_counter()
                control.send(count)
                send_many(repeat(message, count))
                check(control.recv(), "the last message differs")
                return time.perf_counter() - start

            return seconds_each(effort.seconds, run)
    finally:
        sending.close()
        receiving.close()


def _receive_batches(control: Control, receiving: ReceivePort) -> None:
    receiving.open()
    try:
        control.send(True)
        checked = control.recv()
        received = [message for batch in receiving.batches(checked) for message in batch]
        control.send(received == [sample(Kind.BYTES, number) for number in range(checked)])
        expected = sample(Kind.BYTES, 0)
        while True:
            count = control.recv()
            batch: list[Any] = []
            for batch in receiving.batches(count):  # noqa: B007 - the last one is looked at
                pass
            control.send(batch[-1] == expected)
    finally:
        receiving.close()


def _rate(seconds: Callable[[Effort], float]) -> Measure:
    return lambda effort: {"": 1 / seconds(effort)}


def _rates(rivals: Iterable[Rival], kind: Kind) -> dict[str, Measure]:
    return {rival.key: _rate(partial(_one_way, rival, kind, SMALL)) for rival in rivals}


def _throughput(rival: Rival) -> Measure:
    return lambda effort: {"recv": _LARGE / _one_way(rival, Kind.BYTES, _LARGE, effort)}


def _ours_large(effort: Effort) -> Figures:
    figures = _throughput(OURS_RIVAL)(effort)
    with suppress(Unavailable):
        figures["recv_view"] = _LARGE / _views(effort)
    return figures


def _views(effort: Effort) -> float:
    """As ``_one_way``, received as views that are released at once."""
    import ipc_channel as ipc

    sender, receiver = ipc.bytes_channel()
    if not hasattr(receiver, "recv_view"):
        sender.close()
        receiver.close()
        raise Unavailable("there is no recv_view")
    with sender, receiver:
        with peer(_receive_views, receiver) as control:
            control.send(_CHECKED_LARGE)
            for number in range(_CHECKED_LARGE):
                sender.send(sample(Kind.BYTES, number, _LARGE))
            check(control.recv(), "views differ")
            message = sample(Kind.BYTES, 0, _LARGE)

            def run(count: int) -> float:
                start = time.perf_counter()
                control.send(count)
                for _ in repeat(None, count):
                    sender.send(message)
                check(control.recv(), "the last view differs")
                return time.perf_counter() - start

            return seconds_each(effort.seconds, run)


def _receive_views(control: Control, receiver: Any) -> None:
    with receiver:
        right = True
        for number in range(control.recv()):
            with receiver.recv_view() as view:
                right = right and view == sample(Kind.BYTES, number, _LARGE)
        control.send(right)
        first, last = sample(Kind.BYTES, 0, _LARGE)[0], sample(Kind.BYTES, 0, _LARGE)[-1]
        while True:
            right = True
            for _ in repeat(None, control.recv()):
                with receiver.recv_view() as view:
                    right = view[0] == first and view[-1] == last
            control.send(right)


def _alone(effort: Effort) -> Figures:
    """What the slower side of a channel takes for the encoding alone."""
    item = sample(Kind.STRUCT, 0)
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Item).decode
    encoded = encode(item)
    check(decode(encoded) == item, "an item differs")

    def loop(function: Callable[[Any], object], argument: object, count: int) -> float:
        start = time.perf_counter()
        for _ in repeat(None, count):
            function(argument)
        return time.perf_counter() - start

    each = seconds_each_in_turn(
        effort.seconds, {"encode": partial(loop, encode, item), "decode": partial(loop, decode, encoded)}
    )
    return {"": 1 / max(each.values())}


_FAMILY: Final = "One way"
_CLOCK: Final = "from the first send until the receiver has answered that it has everything"

SUBJECTS: Final = (
    Subject(
        key="bytes-64",
        name="64 B bytes, one way",
        family=_FAMILY,
        what=f"A loop of send here, a loop over the messages there; {_CLOCK}.",
        metrics=[Metric("", Unit.RATE)],
        measures={**_rates(LIBRARIES, Kind.BYTES), "rust": by_rust_peer("bytes-64")},
        targets=[
            fixed("", 10e6, Unit.RATE),
            fastest_peer("", Unit.RATE, 7),
            beside("", Unit.RATE, "rust", "the Rust crate", 9),
        ],
        chart=[""],
    ),
    Subject(
        key="struct",
        name="struct of 4 fields, one way",
        family=_FAMILY,
        what="The same with a struct (int, str, float, list of 3 str), typed by msgspec here and by serde in Rust;"
        " libraries that know only bytes carry msgspec's MessagePack. msgspec: encoding or decoding alone, whichever is"
        " slower, in one process.",
        metrics=[Metric("", Unit.RATE)],
        measures={**_rates(LIBRARIES, Kind.STRUCT), "rust": by_rust_peer("struct"), "msgspec": _alone},
        targets=[fixed("", 4e6, Unit.RATE), beside("", Unit.RATE, "rust", "the Rust crate", 4.5)],
        chart=[""],
    ),
    Subject(
        key="dict",
        name="small dict, one way",
        family=_FAMILY,
        what="The same with a dict of three entries, on channels without a type; the other libraries pickle it.",
        metrics=[Metric("", Unit.RATE)],
        measures=_rates(LIBRARIES, Kind.OBJECT),
        targets=[fixed("", 1.5e6, Unit.RATE), beside("", Unit.RATE, PIPE.key, PIPE.title, 8)],
        chart=[""],
    ),
    Subject(
        key="batches",
        name="64 B bytes, in batches",
        family=_FAMILY,
        what="One send of many messages here, receives of as many as are there; cloudtoid-interprocess receives one"
        " by one, since it has no other way.",
        metrics=[Metric("", Unit.RATE)],
        measures={rival.key: _rate(partial(_batched, rival)) for rival in (OURS_RIVAL, FASTER_FIFO, CLOUDTOID)},
    ),
    Subject(
        key="bytes-1mib",
        name="1 MiB bytes, one way",
        family=_FAMILY,
        what="A loop of send here; there recv to bytes of one's own, or recv_view, which copies nothing: each view is"
        " looked at in two places and released. Everybody's C library is told to keep freed memory.",
        keeps_memory=True,
        metrics=[Metric("recv", Unit.THROUGHPUT), Metric("recv_view", Unit.THROUGHPUT)],
        measures={
            **{rival.key: _throughput(rival) for rival in LIBRARIES},
            OURS_RIVAL.key: _ours_large,
            "rust": by_rust_peer("bytes-1mib"),
        },
        targets=[fixed("recv_view", 12e9, Unit.THROUGHPUT), fastest_peer("recv", Unit.THROUGHPUT, 1)],
        chart=["recv"],
    ),
)
