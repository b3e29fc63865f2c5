"""MessagePack for messages of an untyped channel that are small trees of builtin values.

Which messages those are, ``crates/python/src/literals.rs`` decides, for each. It imports this module once a program has
sent some hundred messages, or receives one of these: msgspec takes a while.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

__all__ = ["decode", "decode_tuple", "encode"]

encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
decode: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder().decode
decode_tuple: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder(tuple).decode
