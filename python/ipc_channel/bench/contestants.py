"""Everybody who has a column: this package, its peers, and the yardsticks."""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ipc_channel.bench.results import Contestant
from ipc_channel.bench.rivals.libraries import LIBRARIES, SOCKETS
from ipc_channel.bench.rivals.rust import Rust
from ipc_channel.bench.subject import OURS

__all__ = ["KEYS", "contestants"]


@dataclass(frozen=True, slots=True)
class _Other:
    """Something that is no library with an adapter."""

    key: str
    title: str
    column: str


_RUST: Final = Rust()
_BARE: Final = _Other("seqpacket", "send and recv of a seqpacket socket pair, from Rust", "bare sockets")
_MEMCPY: Final = _Other("memcpy", "numpy.copyto, which is memcpy", "memcpy")
_MSGSPEC: Final = _Other("msgspec", "MessagePack of msgspec, without a channel", "msgspec")
_STREAMS: Final = _Other("streams", "asyncio streams over a Unix socket", "asyncio streams")

KEYS: Final = (
    *(library.key for library in LIBRARIES),
    _RUST.key,
    _BARE.key,
    SOCKETS.key,
    _MEMCPY.key,
    _MSGSPEC.key,
    _STREAMS.key,
)


def contestants(rust_peer: str | None) -> Sequence[Contestant]:
    """All of them, each with its version, or with the reason why it cannot be measured here."""
    found: list[Contestant] = []
    for library in LIBRARIES:
        missing = library.missing()
        version = None if missing else library.version()
        found.append(Contestant(library.key, library.title, library.column, library.key != OURS, version, missing))
    without_rust = _RUST.missing(rust_peer)
    version = None if without_rust else _RUST.version()
    found.append(Contestant(_RUST.key, _RUST.title, _RUST.column, True, version, without_rust))
    for one, peer, version, missing in (
        (_BARE, False, f"Linux {platform.release()}", without_rust),
        (SOCKETS, False, SOCKETS.version(), None),
        (_MEMCPY, False, None, None if importlib.util.find_spec("numpy") else "numpy is not installed"),
        (_MSGSPEC, False, importlib.metadata.version("msgspec"), None),
        (_STREAMS, True, f"Python {platform.python_version()}", None),
    ):
        found.append(Contestant(one.key, one.title, one.column, peer, version, missing))
    return found
