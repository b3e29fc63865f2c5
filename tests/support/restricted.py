"""``python -m tests.support.restricted SPEC SOURCE [ARGUMENT...]``: what ``run_snippet`` starts in a restricted child.

It imports what the source needs, lowers the limits, gives up its privileges, and then runs the source.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import sys

PR_SET_DUMPABLE = 4


def become(uid: int) -> None:
    """Become that user for good, and be as traceable as a program that this user started."""
    os.chdir("/")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # A change of user makes /proc/self root's, as it would not be for a program started by that user.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def main() -> None:
    what = json.loads(sys.argv[1])
    source = sys.argv[2]
    sys.argv = ["-c", *sys.argv[3:]]
    for name in what["preload"]:
        importlib.import_module(name)
    for kind, value in what["limits"].items():
        resource.setrlimit(int(kind), (value, value))
    if what["uid"] is not None:
        become(what["uid"])
    exec(compile(source, "<snippet>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
