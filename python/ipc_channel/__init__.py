"""Channels between processes: typed, fast, safe, and able to carry themselves.

A channel has a sender and a receiver. Either can be given to another process, also inside a message, and the
death of a process is the end of the stream for the other side.

>>> import ipc_channel as ipc
>>> from msgspec import Struct
>>> class Question(Struct):
...     text: str
...     reply: ipc.Sender[int]
>>> questions, inbox = ipc.channel(Question)
>>> answers, answer = ipc.channel(int)
>>> with questions, inbox, answer:
...     questions.send(Question("How long am I?", reply=answers))  # `answers` moves away with it
...     question = inbox.recv()
...     with question.reply:
...         question.reply.send(len(question.text))
...     answer.recv()
14

``channel(T)`` validates every message with msgspec and never unpickles; ``channel()`` takes any picklable object
and is for peers that you trust; ``bytes_channel()`` carries raw bytes.
"""

import importlib
from typing import TYPE_CHECKING

from ipc_channel.channel import BytesChannel, Channel, bytes_channel, channel
from ipc_channel.errors import (
    AcceptTimeout,
    BacklogFull,
    ClosedError,
    ConnectError,
    DecodeError,
    Disconnected,
    Empty,
    EncodeError,
    ForkError,
    Full,
    IpcError,
    KernelError,
    ProtocolError,
    ReceiverGone,
    RecvTimeout,
    SendTimeout,
    TooManyHandles,
)
from ipc_channel.processes.fork import close_inherited
from ipc_channel.receiver import BytesReceiver, OpaqueReceiver, Receiver
from ipc_channel.sender import BytesSender, OpaqueSender, Sender

if TYPE_CHECKING:
    from ipc_channel.fd import Fd
    from ipc_channel.one_shot import BytesOneShotServer, OneShotServer, connect, connect_bytes
    from ipc_channel.opaque import OpaqueMessage
    from ipc_channel.processes.subprocess import Passing, inherit, passing
    from ipc_channel.receiver_set import Closed, Received, ReceiverSet, Undecodable
    from ipc_channel.router import END, End, Router, default_router
    from ipc_channel.shared_memory import SharedMemory
    from ipc_channel.statistics import ReceiverStatistics, SenderStatistics
else:
    # What not every program needs is imported when it is first named, so that starting a process stays cheap.
    _MODULES = {
        "fd": ["Fd"],
        "one_shot": ["BytesOneShotServer", "OneShotServer", "connect", "connect_bytes"],
        "opaque": ["OpaqueMessage"],
        "processes.subprocess": ["Passing", "inherit", "passing"],
        "receiver_set": ["Closed", "Received", "ReceiverSet", "Undecodable"],
        "router": ["END", "End", "Router", "default_router"],
        "shared_memory": ["SharedMemory"],
        "statistics": ["ReceiverStatistics", "SenderStatistics"],
    }

    def __getattr__(name: str) -> object:
        for module, names in _MODULES.items():
            if name in names:
                found = getattr(importlib.import_module(f"ipc_channel.{module}"), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "channel",
    "bytes_channel",
    "Channel",
    "BytesChannel",
    "Sender",
    "Receiver",
    "BytesSender",
    "BytesReceiver",
    "OpaqueSender",
    "OpaqueReceiver",
    "OpaqueMessage",
    "SenderStatistics",
    "ReceiverStatistics",
    "SharedMemory",
    "Fd",
    "ReceiverSet",
    "Received",
    "Closed",
    "Undecodable",
    "Router",
    "default_router",
    "END",
    "End",
    "OneShotServer",
    "BytesOneShotServer",
    "connect",
    "connect_bytes",
    "passing",
    "Passing",
    "inherit",
    "close_inherited",
    "IpcError",
    "Empty",
    "Full",
    "RecvTimeout",
    "SendTimeout",
    "AcceptTimeout",
    "Disconnected",
    "ReceiverGone",
    "ClosedError",
    "EncodeError",
    "DecodeError",
    "ProtocolError",
    "ConnectError",
    "ForkError",
    "TooManyHandles",
    "BacklogFull",
    "KernelError",
]
