"""The messages that are measured, small enough that a library's own work shows, and each different when checked."""

from typing import Any, Final

import msgspec

from ipc_channel.bench.rivals.rival import Kind

__all__ = ["SMALL", "Item", "sample"]

SMALL: Final = 64
"""Bytes of a small message."""


class Item(msgspec.Struct):
    """A struct of four fields."""

    number: int
    name: str
    weight: float
    tags: list[str]


def sample(kind: Kind, number: int, size: int = SMALL) -> Any:
    """Message ``number`` of its kind; ``size`` is that of raw bytes."""
    match kind:
        case Kind.BYTES:
            return number.to_bytes(8, "little") + bytes([number % 251]) * (size - 8)
        case Kind.STRUCT:
            return Item(number, f"item {number}", number * 0.5, ["alpha", "beta", "gamma"])
        case Kind.OBJECT:
            return {"number": number, "name": f"item {number}", "weight": number * 0.5}
