"""The versions here, what ``/proc`` lets us see, and whether we are in a container."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ipc_channel.cli.doctor.check import Check

_GROUP = "system"
_PACKAGES = {
    "msgspec": "typed channels",
    "anyio": "asyncio and trio: arecv, asend, aselect",
    "rich": "tables and progress of this command",
}


def checks() -> list[Check]:
    """Versions and surroundings."""
    return [_kernel(), _python(), _package(), *_dependencies(), _start_methods(), _proc(), _ptrace(), _container()]


def _kernel() -> Check:
    return Check(_GROUP, "kernel", f"{platform.system()} {platform.release()}", "everything below is tried on it")


def _python() -> Check:
    value = f"{platform.python_implementation()} {platform.python_version()}"
    purpose = "the extension module is built for CPython from 3.11 on"
    if sys.implementation.name != "cpython":
        return Check(_GROUP, "Python", value, purpose, "failure", "use CPython")
    return Check(_GROUP, "Python", value, purpose)


def _package() -> Check:
    purpose = "what is installed"
    try:
        return Check(_GROUP, "ipc-channel", version("ipc-channel"), purpose)
    except PackageNotFoundError:
        return Check(
            _GROUP,
            "ipc-channel",
            "imported, but not installed",
            purpose,
            "warning",
            "child processes started elsewhere may not find it: install it with pip",
        )


def _dependencies() -> list[Check]:
    found: list[Check] = []
    for name, purpose in _PACKAGES.items():
        try:
            found.append(Check(_GROUP, name, version(name), purpose))
        except PackageNotFoundError:
            advice = f"install it: pip install {name}"
            found.append(Check(_GROUP, name, "not installed", purpose, "failure", advice))
    return found


def _start_methods() -> Check:
    import multiprocessing

    default = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    methods = ", ".join(multiprocessing.get_all_start_methods())
    return Check(
        _GROUP,
        "start methods",
        f"{methods}; default {default}",
        "multiprocessing: ends travel as arguments under each; under fork the child also inherits all others",
    )


def _proc() -> Check:
    purpose = "one-shot servers are reached through /proc/PID/fd; inspect reads it"
    if not os.path.exists("/proc/self/fd"):
        return Check(_GROUP, "/proc", "not mounted", purpose, "failure", "mount it: mount -t proc proc /proc")
    hidden = hidepid(Path("/proc/self/mountinfo").read_text())
    if hidden in ("0", "off"):
        return Check(_GROUP, "/proc", "mounted, shows all processes", purpose)
    return Check(
        _GROUP,
        "/proc",
        f"mounted with hidepid={hidden}",
        purpose,
        "warning",
        "processes of other users are hidden: inspect cannot name them; own processes work as ever",
    )


def hidepid(mounts: str) -> str:
    """The ``hidepid`` option of the topmost mount at ``/proc``; ``"0"`` if it has none.

    Parameters:
        mounts: the content of ``/proc/self/mountinfo``.
    """
    value = "0"
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[4] == "/proc" and rest.startswith("proc "):
            options = rest.split(" ", 2)[2].split(",")
            value = next((option[8:] for option in options if option.startswith("hidepid=")), "0")
    return value


def _ptrace() -> Check:
    purpose = "one-shot servers of this process can be reached by its user"
    # A process that may not be dumped has its folder in /proc owned by root, even from its own user.
    if os.geteuid() != 0 and os.stat("/proc/self/fd").st_uid != os.geteuid():
        return Check(
            _GROUP,
            "dumpable process",
            "no",
            purpose,
            "warning",
            "connect fails with ConnectError: start Python without file capabilities or set-uid",
        )
    try:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
    except OSError:
        scope = "absent"
    return Check(_GROUP, "dumpable process", f"yes (yama ptrace_scope: {scope}, does not matter)", purpose)


def _container() -> Check:
    hints = _container_hints()
    return Check(
        _GROUP,
        "container",
        ", ".join(hints) if hints else "no sign of one",
        "names of one-shot servers hold among processes that share /proc (pid namespace);"
        " in containers, start both sides in one, or share it (docker --pid)",
    )


def _container_hints() -> list[str]:
    hints: list[str] = []
    if os.path.exists("/.dockerenv"):
        hints.append("docker")
    if os.path.exists("/run/.containerenv"):
        hints.append("podman")
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        hints.append("kubernetes")
    # Set by systemd-nspawn, podman and lxc.
    manager = os.environ.get("container")  # noqa: SIM112
    if manager:
        hints.append(f"container={manager}")
    kernel = Path("/proc/version").read_text()
    if "gVisor" in kernel:
        hints.append("gVisor")
    if "microsoft" in kernel.lower():
        hints.append("WSL")
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "NSpid" and len(value.split()) > 1:
            hints.append("nested pid namespace")
        if name == "Seccomp" and value.strip() == "2":
            hints.append("system calls are filtered (seccomp)")
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        hints.append("user namespace")
    return hints
