"""A service in asyncio, and clients in other processes.

The service answers each request in a task of its own, so a slow one does not delay the others. The clients are plain
programs without asyncio. Run it:

    python async_service.py
"""

import asyncio
import contextlib
import multiprocessing

from msgspec import Struct

import ipc_channel as ipc


class Request(Struct):
    """A number of seconds to wait, and where to send the answer."""

    client: str
    seconds: float
    reply: ipc.Sender[str]


async def answer(request: Request) -> None:
    """Do what was asked for."""
    with request.reply:
        await asyncio.sleep(request.seconds)
        with contextlib.suppress(ipc.ReceiverGone):  # the client has given up, or died
            await request.reply.asend(f"{request.client} waited {request.seconds} s")


async def serve(requests: ipc.Receiver[Request]) -> None:
    """Answer until every client is gone."""
    async with asyncio.TaskGroup() as tasks:
        async for request in requests:
            tasks.create_task(answer(request))


def run_client(name: str, seconds: float, requests: ipc.Sender[Request]) -> None:
    """Ask once, with a timeout."""
    ipc.close_inherited(keep=[requests])  # for the start method fork; otherwise there is nothing to close
    reply, answers = ipc.channel(str)
    with requests, reply, answers:
        requests.send(Request(name, seconds, reply))
        try:
            print(answers.recv(timeout=2), flush=True)
        except ipc.RecvTimeout:
            print(f"{name} did not want to wait any longer", flush=True)


def main() -> None:
    """Start three clients and serve them."""
    sender, requests = ipc.channel(Request)
    processes = [
        multiprocessing.Process(target=run_client, args=[name, seconds, sender])
        for name, seconds in [("slow", 1.0), ("quick", 0.0), ("endless", 4.0)]
    ]
    with requests:
        with sender:
            for process in processes:
                process.start()
        asyncio.run(serve(requests))
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
