"""The limits that messages meet: open files, memory, and how much a socket holds."""

import os
import resource
from pathlib import Path

from ipc_channel import _core
from ipc_channel.cli.doctor.check import Check
from ipc_channel.cli.doctor.kernel import packets_held

_GROUP = "limits"
_FEW_FILES = 4096
_LITTLE_MEMORY = 256 << 20
_SMALL = 64
_CAN_EXCEED_IN_FLIGHT = (1 << 21) | (1 << 24)  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE


def checks() -> list[Check]:
    """Every limit, with what to do about the tight ones."""
    found = [_open_files(), _in_flight(), _system_files(), _memory()]
    found += _control_group()
    found += [_file_size(), _small_messages(), _packet()]
    return found


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    value = f"{_limit(soft)} (hard limit {_limit(hard)}; {used} open here)"
    purpose = "each end and each shared memory is an open file; each handle received becomes one"
    tight = soft != resource.RLIM_INFINITY and soft < _FEW_FILES
    if not tight:
        return Check(_GROUP, "open files", value, purpose)
    if hard == resource.RLIM_INFINITY or hard > soft:
        wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        advice = (
            f"with more than about {soft} ends and memories in one process comes TooManyHandles; raise it"
            f" with `ulimit -n {wanted}`, or in Python with resource.setrlimit(resource.RLIMIT_NOFILE, ...)"
        )
    else:
        advice = (
            f"with more than about {soft} ends and memories in one process comes TooManyHandles; root can"
            " raise it (/etc/security/limits.conf, LimitNOFILE= of systemd, --ulimit of docker)"
        )
    return Check(_GROUP, "open files", value, purpose, "warning", advice)


def _in_flight() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    purpose = "handles inside messages that nobody has received yet"
    if _capabilities() & _CAN_EXCEED_IN_FLIGHT:
        return Check(_GROUP, "descriptors in flight", "not limited for this process (privileged)", purpose)
    tight = soft != resource.RLIM_INFINITY and soft < _FEW_FILES
    return Check(
        _GROUP,
        "descriptors in flight",
        f"{_limit(soft)} for all processes of this user together",
        purpose,
        "warning" if tight else "fine",
        "beyond it `send` raises TooManyHandles; it follows the limit on open files, raise that" if tight else "",
    )


def _system_files() -> Check:
    used, _, limit = Path("/proc/sys/fs/file-nr").read_text().split()
    tight = int(used) * 10 > int(limit) * 9
    # The kernel's default is "as good as none": 2**63 - 1.
    shown = "no limit" if int(limit) >= 1 << 62 else f"{int(limit):,}"
    return Check(
        _GROUP,
        "open files, whole system",
        f"{shown} ({int(used):,} in use)",
        "all processes share it",
        "warning" if tight else "fine",
        "nearly used up: root can raise it with `sysctl fs.file-max=...`" if tight else "",
    )


def _memory() -> Check:
    available = _available_memory()
    purpose = "unread large messages and shared memory live in memory"
    if available is None:
        return Check(_GROUP, "memory available", "unknown", purpose)
    tight = available < _LITTLE_MEMORY
    return Check(
        _GROUP,
        "memory available",
        _size(available),
        purpose,
        "warning" if tight else "fine",
        "large messages may get a process killed by the kernel: free memory first" if tight else "",
    )


def _available_memory() -> int | None:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group() -> list[Check]:
    found = control_group_memory(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    purpose = "shared memory and unread large messages count as memory of the group that wrote them"
    name = "memory of the control group"
    if found is None:
        return [Check(_GROUP, name, "no limit", purpose)]
    limit, used = found
    tight = limit - used < _LITTLE_MEMORY
    return [
        Check(
            _GROUP,
            name,
            f"{_size(limit)} ({_size(used)} in use)",
            purpose,
            "warning" if tight else "fine",
            "beyond it the kernel kills a process of the group: raise memory.max, or --memory of the container"
            if tight
            else "",
        )
    ]


def control_group_memory(membership: str, mounts: str) -> tuple[int, int] | None:
    """The tightest memory limit of this process's control groups, and what is used of it, in bytes.

    Parameters:
        membership: the content of ``/proc/self/cgroup``.
        mounts: the content of ``/proc/self/mountinfo``.
    """
    tightest: tuple[int, int] | None = None
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            kind, limit_file, usage_file = "cgroup2", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            kind, limit_file, usage_file = "cgroup", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        mount = _mount_of(kind, "memory", mounts)
        if mount is None:
            continue
        root, point = mount
        # In a container the mount may show only a part of the tree: `root` is what its top stands for.
        inside = path[len(root) :] if root != "/" and path.startswith(root) else path
        folder = point / inside.lstrip("/")
        for level in (folder, *folder.parents):
            found = _limit_and_usage(level / limit_file, level / usage_file)
            if found is not None and (tightest is None or found[0] - found[1] < tightest[0] - tightest[1]):
                tightest = found
            if level == point:
                break
    return tightest


def _mount_of(kind: str, controller: str, mounts: str) -> tuple[str, Path] | None:
    """Where a hierarchy of control groups is mounted, and which of its folders is seen there."""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        filesystem, _, options = rest.split(" ", 2)
        if filesystem == kind and (kind == "cgroup2" or controller in options.split(",")):
            root, point = fields.split()[3:5]
            return root, Path(point)
    return None


def _limit_and_usage(limit_file: Path, usage_file: Path) -> tuple[int, int] | None:
    try:
        limit, used = limit_file.read_text().strip(), int(usage_file.read_text())
    except (OSError, ValueError):
        return None
    # Version 1 writes "no limit" as a number near 2**63.
    if limit == "max" or int(limit) >= 1 << 60:
        return None
    return int(limit), used


def _file_size() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    purpose = "the largest shared memory or message"
    if soft == resource.RLIM_INFINITY:
        return Check(_GROUP, "size of a file", "no limit", purpose)
    return Check(
        _GROUP,
        "size of a file",
        _size(soft),
        purpose,
        "warning",
        "it also holds for shared memory: larger messages fail with KernelError; raise it with `ulimit -f unlimited`",
    )


def _small_messages() -> Check:
    purpose = "how far a sender may run ahead of its receiver without memory of its own"
    name = f"unread messages of {_SMALL} B a channel's socket holds"
    try:
        count = packets_held(_SMALL)
    except OSError as error:
        return Check(_GROUP, name, f"none: {error}", purpose, "failure", _RAISE_WMEM)
    return Check(
        _GROUP,
        name,
        f"{count} (measured; net.core.wmem_default is {_sysctl('net/core/wmem_default')})",
        purpose,
        "warning" if count < 100 else "fine",
        f"`send` may wait although the channel is not bounded: {_RAISE_WMEM}" if count < 100 else "",
    )


def _packet() -> Check:
    largest = _core.native_max_inline()
    name = "largest packet"
    purpose = "messages up to this size travel in a packet, larger ones in shared memory"
    try:
        # The header of a packet comes on top of the body.
        count = packets_held(largest + 64)
    except OSError as error:
        return Check(_GROUP, name, f"{_size(largest)} does not fit: {error}", purpose, "failure", _RAISE_WMEM)
    return Check(
        _GROUP,
        name,
        f"{_size(largest)} fits ({count} of them unread)",
        purpose,
        "fine" if count else "failure",
        "" if count else _RAISE_WMEM,
    )


_RAISE_WMEM = "root can raise it with `sysctl net.core.wmem_default=212992`"


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _sysctl(name: str) -> str:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return "unknown"


def _limit(value: int) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else f"{value:,}"


def _size(value: int) -> str:
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value} B"
