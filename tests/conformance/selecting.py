"""Events of a receiver set."""

from __future__ import annotations

from typing import Any


def select_until(receivers: Any, count: int) -> list[Any]:
    """Events until there are so many."""
    events: list[Any] = []
    while len(events) < count:
        events += receivers.select(20)
    return events
