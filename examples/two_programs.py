"""Two programs that were started apart talk in both directions.

The first makes a one-shot server and hands its name over, here on the command line of the second:

    python two_programs.py

The client's first message carries a sender, so the server can answer. From then on each has a channel to the other.
"""

import subprocess
import sys

from msgspec import Struct

import ipc_channel as ipc


class Text(Struct):
    """What the server answers."""

    line: str


class Hello(Struct, tag=True):
    """The client's first message: who it is, and how to answer it."""

    name: str
    answers: ipc.Sender[Text]


class Shout(Struct, tag=True):
    """What the client asks for."""

    line: str


def serve() -> None:
    """Wait for one client, and answer until it leaves."""
    with ipc.OneShotServer(Hello | Shout) as server:
        client = subprocess.Popen([sys.executable, __file__, server.name])
        requests, first = server.accept(timeout=30)
    with requests:
        if not isinstance(first, Hello):
            raise SystemExit(f"a client should say hello first, not {first}")
        print(f"server: {first.name} is here", flush=True)
        with first.answers as answers:
            for request in requests:
                if isinstance(request, Shout):
                    answers.send(Text(request.line.upper()))
    print(f"server: {first.name} has left with exit code {client.wait()}", flush=True)


def be_client(server_name: str) -> None:
    """Introduce ourselves, then ask."""
    answers_sender, answers = ipc.channel(Text)
    with answers, ipc.connect(server_name, Hello | Shout) as server:
        server.send(Hello("the client", answers_sender))  # `answers_sender` moves away with it
        for line in ["hello", "goodbye"]:
            server.send(Shout(line))
            print(f"client: {line} -> {answers.recv(timeout=30).line}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve()
    else:
        be_client(sys.argv[1])
