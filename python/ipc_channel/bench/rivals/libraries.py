"""All libraries that carry messages between Python processes."""

from typing import Final

from ipc_channel.bench.rivals.cloudtoid import Cloudtoid
from ipc_channel.bench.rivals.faster_fifo import FasterFifo
from ipc_channel.bench.rivals.multiprocessing import Pipe, Queue
from ipc_channel.bench.rivals.ours import Ours
from ipc_channel.bench.rivals.rival import Rival
from ipc_channel.bench.rivals.sockets import Sockets
from ipc_channel.bench.rivals.zeromq import ZeroMQ

__all__ = ["CLOUDTOID", "FASTER_FIFO", "LIBRARIES", "OURS_RIVAL", "PIPE", "QUEUE", "SOCKETS", "ZEROMQ"]

OURS_RIVAL: Final[Rival] = Ours()
PIPE: Final[Rival] = Pipe()
QUEUE: Final[Rival] = Queue()
ZEROMQ: Final[Rival] = ZeroMQ()
FASTER_FIFO: Final[Rival] = FasterFifo()
CLOUDTOID: Final[Rival] = Cloudtoid()

SOCKETS: Final[Rival] = Sockets()
"""What all of them are made of, and no library by itself."""

LIBRARIES: Final = (OURS_RIVAL, PIPE, QUEUE, ZEROMQ, FASTER_FIFO, CLOUDTOID)
