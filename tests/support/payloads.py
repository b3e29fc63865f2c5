"""Payloads past the codec: what a hostile peer could send on a channel, and what its receiver would be given."""

from __future__ import annotations

__all__ = ["Payloads"]


class Payloads:
    """The codec of a channel with that label, but for one thing: its messages are the encoded bytes themselves."""

    def __init__(self, label: int) -> None:
        self.label = label
        self.about = "payloads"
        self.accepts = None
        self.encode = None
        self.decode = None
        self.decode_delivery = None
