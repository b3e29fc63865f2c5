"""The codec of bytes channels: the payload is the message."""

from typing import Final

from ipc_channel._core import LABEL_BYTES

__all__ = ["RAW", "RawCodec"]


class RawCodec:
    """Any contiguous buffer goes in, ``bytes`` come out; handles are refused."""

    def __init__(self) -> None:
        self.label = LABEL_BYTES
        self.about = "bytes"
        self.accepts: None = None
        self.encode: None = None
        self.encoding: None = None
        self.decode: None = None
        self.decode_delivery: None = None

    def __repr__(self) -> str:
        return "<codec of raw bytes>"


RAW: Final = RawCodec()
