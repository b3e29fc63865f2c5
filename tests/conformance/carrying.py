"""A parcel there and back again."""

from __future__ import annotations

from typing import Any

from tests.conformance.implementations import PARCELS, Implementation


def carry(implementation: Implementation, **fields: Any) -> Any:
    """Send one parcel through a channel of its own and return what arrives."""
    sender, receiver = implementation.make_channel(PARCELS)
    with sender, receiver:
        sender.send(implementation.parcel(**fields))
        return receiver.recv(20)
