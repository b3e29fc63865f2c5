"""A worker of the demo: ``python -m ipc_channel.cli.demo.worker NAME``.

NAME is the name of the supervisor's one-shot server.
"""

import os
import sys

import ipc_channel as ipc
from ipc_channel.cli.demo.jobs import Hello, Job, count_tokens


def main(name: str) -> None:
    """Introduce this process, then do jobs until the supervisor has no more or is gone."""
    jobs_sender, jobs = ipc.channel(Job)
    # The connection itself stays open as long as this process lives: its end tells the supervisor of our death.
    with jobs_sender, jobs, ipc.connect(name, Hello, timeout=30.0) as supervisor:
        supervisor.send(Hello(os.getpid(), jobs_sender))
        for job in jobs:
            with job.source, job.reply:
                answer = count_tokens(job.number, bytes(job.source))
                job.reply.send(answer)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except ipc.ConnectError as error:
        sys.exit(f"ipc-channel demo: a worker did not reach its supervisor: {error}")
    except ipc.ReceiverGone:
        pass  # the supervisor has left, and with it whoever wanted the answers
