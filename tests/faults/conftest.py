"""A channel with a way past the package into its socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ipc_channel as ipc
from tests.faults.victim import Victim
from tests.support.packets import socket_of


@pytest.fixture
def victim() -> Iterator[Victim]:
    """A fresh channel under attack."""
    sender, receiver = ipc.bytes_channel()
    with receiver:
        with sender:
            raw = socket_of(sender)
        with raw:
            yield Victim(receiver, raw)
