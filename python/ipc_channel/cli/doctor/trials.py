"""The package itself, tried: within this process, and with another."""

import subprocess
import sys

import ipc_channel as ipc
from ipc_channel.cli.doctor.check import Check

_GROUP = "the package, tried"
_TIMEOUT = 30.0
_CLIENT = """
import sys
import ipc_channel as ipc
with ipc.connect(sys.argv[1], bytes, timeout=20.0) as sender:
    sender.send(b"hello")
"""


def checks() -> list[Check]:
    """A message with all that can travel in one, and a one-shot server with a client in another process."""
    return [_message(), _one_shot()]


def _message() -> Check:
    purpose = "ends and shared memory inside messages, large messages"
    name = "a message to ourselves"
    content = bytes(range(256)) * 1024
    try:
        sender, receiver = ipc.channel()
        reply, answers = ipc.channel()
        with sender, receiver, reply, answers, ipc.SharedMemory.from_bytes(content) as memory:
            sender.send((reply, memory, content))
            got_reply, got_memory, got_content = receiver.recv(_TIMEOUT)
            with got_reply, got_memory:
                got_reply.send(bytes(got_memory) == got_content == content)
            if answers.recv(_TIMEOUT) is not True:
                return _failed(name, "what arrived is not what was sent", purpose)
    except (ipc.IpcError, OSError) as error:
        return _failed(name, str(error), purpose)
    return Check(_GROUP, name, "works", purpose)


def _one_shot() -> Check:
    purpose = "processes that are not parent and child by multiprocessing find each other"
    name = "a one-shot server and another process"
    try:
        server: ipc.OneShotServer[bytes] = ipc.OneShotServer(bytes)
        with server:
            client = subprocess.Popen(
                [sys.executable, "-P", "-c", _CLIENT, server.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            with client:
                try:
                    receiver, first = server.accept(_TIMEOUT)
                    receiver.close()
                except ipc.AcceptTimeout:
                    client.kill()
                    _, complaint = client.communicate()
                    reason = complaint.strip().splitlines()[-1:] or ["the client did not come"]
                    return _failed(name, reason[0], purpose)
                client.communicate()
    except (ipc.IpcError, OSError) as error:
        return _failed(name, str(error), purpose)
    if first != b"hello":
        return _failed(name, "what arrived is not what was sent", purpose)
    return Check(_GROUP, name, "works", purpose)


def _failed(name: str, reason: str, purpose: str) -> Check:
    advice = "see the failures above; if there are none, this is a fault of the package: please report it"
    return Check(_GROUP, name, f"does not work: {reason}", purpose, "failure", advice)
