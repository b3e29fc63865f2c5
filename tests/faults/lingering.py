"""TCP sockets whose last close blocks for as long as their owner chose."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

FOR_EVER = 3600
"""Seconds; a test that waits for such a close runs into its own timeout."""


@contextlib.contextmanager
def lingering_socket() -> Iterator[socket.socket]:
    """A connection whose peer does not read, with SO_LINGER. At the end of the block the peer resets it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    try:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(bytes(65536))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, FOR_EVER))
        connection.setblocking(True)
        yield connection
    finally:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        connection.close()
