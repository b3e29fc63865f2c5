"""One measurement in a process of its own: ``python -m ipc_channel.bench.worker`` with a JSON object as argument.

So no measurement inherits another's memory, threads or luck; and whatever hangs is killed with all of its children.
"""

import sys

import msgspec

from ipc_channel.bench.peer import end_of_life
from ipc_channel.bench.subject import Effort, Figures, Unavailable

__all__ = ["Answer", "Task", "main"]


class Task(msgspec.Struct):
    """What to measure."""

    subject: str
    rival: str
    effort: Effort


class Answer(msgspec.Struct):
    """What came of it; what went wrong is on standard error instead, and the exit code is 1."""

    figures: Figures = {}
    unavailable: str | None = None
    """Why it could not be measured here."""


def main() -> None:
    """Measure and print the answer as one line."""
    from ipc_channel.bench.subjects import all_subjects

    end_of_life()
    task = msgspec.json.decode(sys.argv[1], type=Task)
    subject = next(subject for subject in all_subjects() if subject.key == task.subject)
    try:
        answer = Answer(subject.measures[task.rival](task.effort))
    except Unavailable as reason:
        answer = Answer(unavailable=str(reason))
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
