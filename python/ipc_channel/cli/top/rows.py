"""Two looks become rows: one for each lane, and one for each channel that has none."""

from collections.abc import Iterable
from dataclasses import dataclass

from ipc_channel.cli.processes import Holder
from ipc_channel.cli.top.look import Lane, Look


@dataclass(frozen=True, slots=True)
class Row:
    """A lane, or the socket of a channel that has none."""

    kind: str
    """``"lane"`` or ``"socket"``."""
    senders: tuple[Holder, ...]
    """Empty if there are none that can be seen."""
    receivers: tuple[Holder, ...]
    """Likewise."""
    rate: float | None
    """Messages a second; None if that cannot be known."""
    waiting: int | None
    """Messages sent and not taken, as far as the receiver has told; None if that cannot be known."""
    unread: int | None
    """Bytes sent and not read, likewise."""
    memory: int | None
    """Bytes of the lane's memory; None of a socket, or if the file cannot be read."""


def rows(before: Look, now: Look, pids: frozenset[int]) -> list[Row]:
    """What happened between the looks, the busiest first. Only of those processes, unless there are none named."""
    seconds = now.at - before.at
    found = [_lane(before.lanes.get(key), lane, seconds) for key, lane in now.lanes.items()]
    found += [
        Row("socket", channel.senders, channel.receivers, None, None, channel.unread, None)
        for channel in now.sockets.values()
    ]
    if pids:
        found = [row for row in found if pids.intersection(_pids((*row.senders, *row.receivers)))]
    return sorted(found, key=_order)


def _lane(before: Lane | None, now: Lane, seconds: float) -> Row:
    state = now.state
    sent_before = before.state.sent if before else 0
    rate = None
    if state.sent is not None and sent_before is not None and state.sent >= sent_before:
        rate = (state.sent - sent_before) / seconds
    senders = (now.sender,) if now.sender else ()
    receivers = (now.receiver,) if now.receiver else ()
    return Row("lane", senders, receivers, rate, state.waiting, state.unread, state.memory)


def _pids(who: Iterable[Holder]) -> list[int]:
    return [holder.pid for holder in who]


def _order(row: Row) -> tuple[float, int, list[int], list[int]]:
    return -(row.rate or 0), -(row.unread or 0), _pids(row.senders), _pids(row.receivers)
