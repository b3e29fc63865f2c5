"""Run a function in a child process, under each way of starting one."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

R = TypeVar("R")

ROOT: Final = Path(__file__).resolve().parents[2]
"""The project's root: what a child needs on its path to import ``tests``."""

START_METHODS: Final = ("fork", "spawn", "forkserver", "subprocess")
"""Parametrize with this: ``@pytest.mark.parametrize("method", START_METHODS)``."""

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds after which a child is killed and its test fails."""


class ChildFailedError(AssertionError):
    """The child raised, was killed, did not finish in time, or left something unraisable behind."""


class Child(Generic[R]):
    """A running child. As a context manager it is killed, if need be, and reaped at the end of the block."""

    def __init__(self, process: BaseProcess | subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        assert process.pid is not None
        self.pid: int = process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.kill()
        try:
            self.wait()
        finally:
            if isinstance(self._process, BaseProcess):
                self._process.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; nothing happens when the child has ended."""
        if self._poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Wait for the end; the exit code, or the negative number of the signal. Kills it at the timeout."""
        if not self._join(timeout):
            self.kill()
            self._join(DEFAULT_TIMEOUT)
            raise ChildFailedError(f"child {self.pid} was still running after {timeout} s and was killed")
        code = self._poll()
        assert code is not None
        return code

    def result(self, timeout: float = DEFAULT_TIMEOUT) -> R:
        """Wait for the end and return what the function returned; ChildFailedError with its traceback otherwise."""
        code = self.wait(timeout)
        outcome = self._folder / "outcome"
        if not outcome.exists():
            raise ChildFailedError(f"child {self.pid} ended without an outcome, exit code {code}")
        value: R
        failure: str | None
        value, failure = pickle.loads(outcome.read_bytes())
        if failure is not None:
            raise ChildFailedError(f"child {self.pid} failed:\n{failure}")
        if code != 0:
            raise ChildFailedError(f"child {self.pid} returned and then exited with {code}")
        return value

    def _poll(self) -> int | None:
        if isinstance(self._process, BaseProcess):
            return self._process.exitcode
        return self._process.poll()

    def _join(self, timeout: float) -> bool:
        if isinstance(self._process, BaseProcess):
            self._process.join(timeout)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        return self._poll() is not None


def start(method: str, function: Callable[..., R], *args: Any, kinds: Sequence[Any] = ()) -> Child[R]:
    """Start ``function(*args)`` in a child.

    ``function`` is a module-level function of a test module or of ``tests.support``; its value comes back pickled.
    Channel ends among ``args`` travel as the start method wants it: held by both under fork, through
    multiprocessing's reducers under spawn and forkserver (a receiver moves once the child has started),
    and by ``ipc.passing`` and ``ipc.inherit`` under subprocess. For that one, ``kinds`` names what each end
    among the arguments is, in their order: ``kinds=(Receiver[int], BytesSender)``.
    """
    folder = Path(tempfile.mkdtemp(prefix="child-"))
    try:
        if method == "subprocess":
            return Child(_popen(function, args, kinds, folder), folder)
        context: Any = multiprocessing.get_context(method)
        process: BaseProcess = context.Process(target=_report, args=(str(folder), function, args), daemon=True)
        with warnings.catch_warnings():
            # A thread of ours or of multiprocessing may live; the child runs Python code of the test only.
            warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
            process.start()
        return Child(process, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def run(
    method: str,
    function: Callable[..., R],
    *args: Any,
    kinds: Sequence[Any] = (),
    timeout: float = DEFAULT_TIMEOUT,
) -> R:
    """``start`` and then ``result``."""
    with start(method, function, *args, kinds=kinds) as child:
        return child.result(timeout)


class _End:
    """Stands in a pickled argument list for the end that is inherited in its place."""


def _popen(
    function: Callable[..., Any], args: tuple[Any, ...], kinds: Sequence[Any], folder: Path
) -> subprocess.Popen[bytes]:
    from ipc_channel import _core

    ends = [value for value in args if isinstance(value, _core.SenderEnd | _core.ReceiverEnd)]
    if len(ends) != len(kinds):
        raise ValueError(f"{len(ends)} ends among the arguments, {len(kinds)} kinds")
    plain = tuple(_End() if value in ends else value for value in args)
    (folder / "call").write_bytes(pickle.dumps((function, plain, tuple(kinds))))
    command = [sys.executable, "-c", "from tests.support.start_methods import main; main()", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not ends:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    import ipc_channel as ipc

    with ipc.passing(*ends) as passing:
        return subprocess.Popen(
            [*command, passing.text], env=environment, stdin=subprocess.DEVNULL, pass_fds=passing.fds
        )


def main() -> None:
    """What a child under "subprocess" runs: ``argv`` is the folder and, with ends, their text."""
    folder = sys.argv[1]
    function, args, kinds = pickle.loads((Path(folder) / "call").read_bytes())
    if kinds:
        import ipc_channel as ipc

        ends = iter(ipc.inherit(sys.argv[2], *kinds))
        args = tuple(next(ends) if isinstance(value, _End) else value for value in args)
        del ends
    _report(folder, function, args)


def _report(folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call, and write down the value or the traceback. What could not be raised is a failure too."""
    # What a child made by fork inherits as garbage is its parent's: it is not collected, and not reported, here.
    gc.freeze()
    unraisable: list[str] = []

    def remember(event: Any) -> None:
        lines = traceback.format_exception(event.exc_type, event.exc_value, event.exc_traceback)
        unraisable.append("".join(lines))

    sys.unraisablehook = remember
    value: Any = None
    failure: str | None = None
    try:
        value = function(*args)
        outcome = pickle.dumps((value, None))
    except BaseException:
        failure = traceback.format_exc()
    gc.collect()
    if failure is None and unraisable:
        failure = "unraisable: " + "\n".join(unraisable)
    if failure is not None:
        outcome = pickle.dumps((None, failure))
    unfinished = Path(folder) / "unfinished"
    unfinished.write_bytes(outcome)
    unfinished.rename(Path(folder) / "outcome")
