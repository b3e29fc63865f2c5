"""Run a piece of Python source in a fresh interpreter, if need be as another user or under lowered limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from tests.support.start_methods import DEFAULT_TIMEOUT, ROOT, ChildFailedError

OTHER_UID: Final = 65534
"""The user and group of a child that is run as another user."""

CAN_CHANGE_USER: Final = os.geteuid() == 0
"""Whether ``as_other_user`` really changes the user. If not, the tests run without privileges as it is."""

PACKAGE: Final = ("ipc_channel.codecs.pickled", "ipc_channel.codecs.typed", "ipc_channel.fd", "ipc_channel.one_shot")
"""The package, with what it imports only when it is first used."""


def run_snippet(
    source: str,
    *arguments: str,
    as_other_user: bool = False,
    limits: Mapping[int, int] | None = None,
    preload: Sequence[str] = PACKAGE,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run ``source`` in a fresh interpreter, warnings being errors; ``arguments`` are its ``sys.argv[1:]``.

    ``limits`` maps ``resource.RLIMIT_...`` to the new value of both limits, for example
    ``{resource.RLIMIT_NOFILE: 64}``. With ``as_other_user`` the child is user 65534 before the source runs when
    the tests run as root, and stays this unprivileged user otherwise. That user may be unable to read the
    environment's folder, so what the source imports is imported before, by ``preload``.
    At the timeout the child and all its descendants are killed. With ``check``, a non-zero exit is a
    ChildFailedError with both outputs.
    """
    command = [sys.executable, "-W", "error"]
    if as_other_user or limits:
        what = {
            "uid": OTHER_UID if as_other_user and CAN_CHANGE_USER else None,
            "limits": {str(kind): value for kind, value in (limits or {}).items()},
            "preload": list(preload),
        }
        command += ["-m", "tests.support.restricted", json.dumps(what), source]
    else:
        command += ["-c", source]
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        pass_fds=pass_fds,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise ChildFailedError(f"still running after {timeout} s and killed\n{out}\n{err}") from None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if check and process.returncode != 0:
        raise ChildFailedError(f"exit code {process.returncode}\n{out}\n{err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
