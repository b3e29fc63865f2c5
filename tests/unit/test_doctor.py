"""``ipc-channel doctor``: what it tries, what it warns of, and its exit code."""

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from ipc_channel.cli import main
from ipc_channel.cli.doctor.kernel import packets_held
from ipc_channel.cli.doctor.limits import control_group_memory
from ipc_channel.cli.doctor.system import hidepid
from tests.support.snippets import run_snippet

SOURCE = "import sys; from ipc_channel.cli import main; sys.exit(main(['doctor', '--json']))"


def diagnose(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json"])
    return code, json.loads(capsys.readouterr().out)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in found["checks"]}


def test_everything_the_package_needs_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = diagnose(capsys)
    assert [check for check in found["checks"] if check["status"] == "failure"] == []
    assert code == 0
    checks = by_name(found)
    for name in (
        "SOCK_SEQPACKET pairs",
        "descriptors in packets (SCM_RIGHTS)",
        "memfd_create and seals",
        "connecting through /proc/self/fd",
        "abstract socket names",
        "SO_PEERCRED",
        "sock_diag",
        "a message to ourselves",
        "a one-shot server and another process",
    ):
        assert checks[name]["value"] == "works"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert checks["open files"]["value"].replace(",", "").startswith(f"{soft} ")
    assert all(check["used_for"] for check in found["checks"])


def test_tables_name_every_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("NO_COLOR", "1")
    _, found = diagnose(capsys)
    assert main(["doctor"]) == 0
    tables = capsys.readouterr().out
    for name in by_name(found):
        assert name in tables
    assert "\x1b" not in tables


def test_a_low_limit_on_open_files_is_a_warning_with_advice() -> None:
    done = run_snippet(SOURCE, limits={resource.RLIMIT_NOFILE: 100}, as_other_user=False)
    found = json.loads(done.stdout)
    check = by_name(found)["open files"]
    assert check["status"] == "warning"
    assert check["value"].startswith("100 (hard limit 100;")
    assert "TooManyHandles" in check["advice"]
    assert found["status"] == "warning"


def test_a_soft_limit_that_can_be_raised_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        code, found = diagnose(capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == 0
    assert "`ulimit -n " in by_name(found)["open files"]["advice"]


def test_a_limit_on_the_size_of_files_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_snippet(SOURCE, limits={resource.RLIMIT_FSIZE: 100 << 20})
    check = by_name(json.loads(done.stdout))["size of a file"]
    assert (check["status"], check["value"]) == ("warning", "100.0 MiB")
    assert "ulimit -f" in check["advice"]


def test_something_that_does_not_work_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", forbidden)
    code, found = diagnose(capsys)
    assert code == 1
    check = by_name(found)["memfd_create and seals"]
    assert check["status"] == "failure"
    assert "Operation not permitted" in check["value"]
    assert check["advice"]
    assert main(["doctor"]) == 1
    assert "failure: memfd_create and seals" in capsys.readouterr().out


def test_what_only_inspect_needs_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> dict[int, object]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr("ipc_channel.cli.doctor.kernel.unix_sockets", absent)
    code, found = diagnose(capsys)
    assert code == 0
    assert by_name(found)["sock_diag"]["status"] == "warning"


def test_how_many_packets_a_socket_holds_is_measured() -> None:
    assert packets_held(64) > packets_held(60_000) > 0
    too_large = int(Path("/proc/sys/net/core/wmem_default").read_text()) + 1
    with pytest.raises(OSError, match="too long"):
        packets_held(too_large)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_the_tightest_limit_of_nested_control_groups_counts(tmp_path: Path) -> None:
    write(tmp_path / "slice/memory.max", "4096\n")
    write(tmp_path / "slice/memory.current", "1024\n")
    write(tmp_path / "slice/unit/memory.max", "max\n")
    write(tmp_path / "slice/unit/memory.current", "1000\n")
    mounts = f"30 24 0:26 / {tmp_path} rw,nosuid - cgroup2 cgroup2 rw\n"
    assert control_group_memory("0::/slice/unit\n", mounts) == (4096, 1024)
    write(tmp_path / "slice/unit/memory.max", "2000\n")
    assert control_group_memory("0::/slice/unit\n", mounts) == (2000, 1000)


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    write(tmp_path / "memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "memory.usage_in_bytes", "5\n")
    write(tmp_path / "group/memory.limit_in_bytes", "1000000\n")
    write(tmp_path / "group/memory.usage_in_bytes", "2000\n")
    mounts = (
        "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        f"32 24 0:28 / {tmp_path} rw shared:5 - cgroup cgroup rw,memory\n"
    )
    membership = "5:cpu:/other\n4:memory:/group\n0::/\n"
    assert control_group_memory(membership, mounts) == (1_000_000, 2_000)
    assert control_group_memory("4:memory:/\n", mounts) is None


def test_a_container_sees_its_own_control_group_as_the_root(tmp_path: Path) -> None:
    write(tmp_path / "memory.max", "5000\n")
    write(tmp_path / "memory.current", "10\n")
    mounts = f"30 24 0:26 /docker/abc {tmp_path} ro - cgroup2 cgroup rw\n"
    assert control_group_memory("0::/docker/abc\n", mounts) == (5000, 10)


def test_no_control_groups_no_limit() -> None:
    assert control_group_memory("0::/\n", "") is None
    assert control_group_memory("", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n") is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [("rw", "0"), ("rw,hidepid=invisible", "invisible"), ("rw,gid=5,hidepid=2", "2")],
)
def test_hidden_processes_are_noticed(options: str, expected: str) -> None:
    mounts = f"20 1 8:1 / / rw - ext4 /dev/root rw\n22 20 0:20 / /proc rw,nosuid - proc proc {options}\n"
    assert hidepid(mounts) == expected
