"""The demo's supervisor: starts the workers, hands out jobs, kills a worker, and loses nothing.

Each job carries a fresh reply sender, which lives nowhere but in the job. So a job that will never be
answered tells so by itself: its reply channel ends, wherever the job was when its worker died.
"""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

import ipc_channel as ipc
from ipc_channel.cli.demo.jobs import Answer, Hello, Job, Module, count_tokens
from ipc_channel.receiver_set import Event

_JOBS_IN_FLIGHT: Final = 4
"""Unanswered jobs a worker may have: enough to keep it busy, and few to do again if it dies."""
_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 10.0

_Key = tuple[str, int]
"""What a receiver in the set is for: ``("worker", index)`` or ``("answer", job number)``."""


class DemoError(Exception):
    """The demo cannot go on; the text says why, for the user."""


class Display(Protocol):
    """Where the supervisor reports what happens."""

    def advance(self, size: int) -> None:
        """One more file, of ``size`` bytes, is done."""

    def note(self, text: str) -> None:
        """Something worth a line has happened."""


@dataclass(slots=True)
class Worker:
    """A worker process and what it has done."""

    index: int
    process: subprocess.Popen[bytes]
    server: ipc.OneShotServer[Hello]
    jobs: ipc.Sender[Job] | None = None
    """None before it has introduced itself, and once it gets no more jobs."""
    in_flight: set[int] = field(default_factory=set[int])
    files: int = 0
    tokens: int = 0
    source_bytes: int = 0
    fate: str = "finished"

    @property
    def name(self) -> str:
        """For people: from 1."""
        return f"worker {self.index + 1}"


@dataclass(slots=True)
class Count:
    """The result of one way of counting."""

    answers: dict[int, Answer] = field(default_factory=dict[int, Answer])
    """By the module's number."""
    unreadable: dict[int, str] = field(default_factory=dict[int, str])
    """Why, by the module's number."""
    source_bytes: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """In all files that tokenize."""
        return sum(answer.tokens for answer in self.answers.values() if answer.problem is None)

    @property
    def broken(self) -> int:
        """Files that do not tokenize."""
        return sum(answer.problem is not None for answer in self.answers.values())


def count_alone(modules: Sequence[Module], display: Display) -> Count:
    """The same work in this process, file by file."""
    count = Count()
    start = time.perf_counter()
    for number, module in enumerate(modules):
        try:
            source = module.path.read_bytes()
        except OSError as error:
            count.unreadable[number] = error.strerror or str(error)
        else:
            count.source_bytes += len(source)
            count.answers[number] = count_tokens(number, source)
        display.advance(module.size)
    count.seconds = time.perf_counter() - start
    return count


class Supervisor:
    """Counts with worker processes. Leaving the ``with`` block ends every worker, whatever has happened."""

    def __init__(self, modules: Sequence[Module], workers: int, display: Display) -> None:
        self._modules = modules
        self._display = display
        self._pending = deque(range(len(modules)))
        self._half = sum(module.size for module in modules) / 2
        self._size_done = 0
        self._events = ipc.ReceiverSet[_Key]()
        self._worker_of: dict[int, Worker] = {}
        self.count = Count()
        self.messages = 0
        """Messages that went through channels, in either direction."""
        self.repeated: set[int] = set()
        """Jobs that a worker left unfinished."""
        self.killed: Worker | None = None
        self.workers: list[Worker] = []
        self._wanted = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._events.close()
        for worker in self.workers:
            worker.server.close()
            self._retire(worker)  # the end of its jobs is what a worker ends by
        for worker in self.workers:
            if exception_type is not None:
                worker.process.kill()
            try:
                worker.process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            if worker.process.returncode != 0 and worker.fate == "finished":
                worker.fate = "died"

    def run(self) -> None:
        """Do all the jobs.

        Raises:
            DemoError: a worker did not start, or none is left to do the work.
        """
        start = time.perf_counter()
        self._start_workers()
        while len(self.count.answers) + len(self.count.unreadable) < len(self._modules):
            self._hand_out()
            # Half-way; or, with so few files that all are under way already, now: later may be too late.
            if self.killed is None and (self._size_done >= self._half or not self._pending):
                self._kill_one()
            if not self._worker_of and all(worker.jobs is None for worker in self.workers):
                raise DemoError("every worker has died, and there is work left")
            if self._worker_of:
                for event in self._events.select():
                    self._handle(event)
        self.count.seconds = time.perf_counter() - start

    def _start_workers(self) -> None:
        for index in range(self._wanted):
            server: ipc.OneShotServer[Hello] = ipc.OneShotServer(Hello)
            try:
                process = _start_process(server.name)
            except BaseException:
                server.close()
                raise
            self.workers.append(Worker(index, process, server))
        for worker in self.workers:
            connection, hello = self._introduced(worker)
            worker.jobs = hello.jobs
            self._events.add(connection, ("worker", worker.index))
            self.messages += 1

    def _introduced(self, worker: Worker) -> tuple[ipc.Receiver[Hello], Hello]:
        deadline = time.monotonic() + _START_TIMEOUT
        with worker.server:
            while True:
                try:
                    return worker.server.accept(timeout=0.25)
                except ipc.AcceptTimeout:
                    code = worker.process.poll()
                    if code is not None:
                        raise DemoError(f"{worker.name} did not start (exit code {code})") from None
                    if time.monotonic() > deadline:
                        raise DemoError(f"{worker.name} did not start within {_START_TIMEOUT:.0f} s") from None

    def _hand_out(self) -> None:
        for worker in self.workers:
            while worker.jobs is not None and self._pending and len(worker.in_flight) < _JOBS_IN_FLIGHT:
                self._send_job(worker, worker.jobs, self._pending.popleft())

    def _send_job(self, worker: Worker, jobs: ipc.Sender[Job], number: int) -> None:
        module = self._modules[number]
        try:
            source = module.path.read_bytes()
        except OSError as error:
            self.count.unreadable[number] = error.strerror or str(error)
            self._size_done += module.size
            self._display.advance(module.size)
            return
        reply, answer = ipc.channel(Answer)
        with reply, answer, ipc.SharedMemory.from_bytes(source) as memory:
            try:
                jobs.send(Job(number, memory, reply))
            except ipc.ReceiverGone:
                # It has died, and we knew nothing of it yet. Nothing of the job was sent.
                self._pending.appendleft(number)
                self._retire(worker)
                return
            self._events.add(answer, ("answer", number))
        self.messages += 1
        self._worker_of[number] = worker
        worker.in_flight.add(number)

    def _kill_one(self) -> None:
        """Kill the worker that will leave the most work unfinished."""
        candidates = [worker for worker in self.workers if worker.jobs is not None]
        if not candidates:
            return
        worker = max(candidates, key=lambda worker: len(worker.in_flight))
        worker.process.kill()
        worker.fate = "killed"
        self._retire(worker)
        self.killed = worker
        self._display.note(
            f"Killed {worker.name} (process {worker.process.pid}) with SIGKILL"
            f" in the middle of its work ({len(worker.in_flight)} unanswered jobs)."
        )

    def _handle(self, event: Event[_Key]) -> None:
        match event:
            case ipc.Received(("answer", number), message):
                self._take_answer(number, message)
            case ipc.Closed(("answer", number)):
                worker = self._worker_of.pop(number, None)
                if worker is not None:
                    # No answer came before the end: that worker is dead or about to be.
                    worker.in_flight.discard(number)
                    self._retire(worker)
                    self._pending.appendleft(number)
                    self.repeated.add(number)
            case ipc.Closed(("worker", index)):
                worker = self.workers[index]
                if worker.fate == "finished":
                    worker.fate = "died"
                    self._display.note(f"{worker.name} has died unexpectedly; the others go on.")
                self._retire(worker)
            case ipc.Undecodable(_, error):
                raise error
            case _:
                raise DemoError(f"a worker sent something unexpected: {event}")

    def _take_answer(self, number: int, answer: Answer) -> None:
        worker = self._worker_of.pop(number)
        worker.in_flight.discard(number)
        module = self._modules[number]
        worker.files += 1
        worker.tokens += answer.tokens if answer.problem is None else 0
        worker.source_bytes += answer.source_bytes
        self.count.answers[number] = answer
        self.count.source_bytes += answer.source_bytes
        self._size_done += module.size
        self.messages += 1
        self._display.advance(module.size)

    def _retire(self, worker: Worker) -> None:
        """No more jobs for this worker."""
        if worker.jobs is not None:
            worker.jobs.close()
            worker.jobs = None


def _start_process(server_name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: what lies in the current folder must not replace modules of the standard library.
        [sys.executable, "-P", "-m", "ipc_channel.cli.demo.worker", server_name],
        stdin=subprocess.DEVNULL,
        # Ctrl-C is for us alone: the workers end by themselves when we do.
        process_group=0,
    )
