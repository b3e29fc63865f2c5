"""``import ipc_channel`` is light: what is heavy, or not for every program, waits until it is used."""

from __future__ import annotations

import textwrap

import pytest

import ipc_channel as ipc
from tests.support.snippets import run_snippet

HEAVY = {
    *("anyio", "asyncio", "concurrent", "dataclasses", "datetime", "inspect", "logging", "msgspec", "multiprocessing"),
    *("numpy", "pickle", "rich", "socket", "subprocess", "tempfile", "trio", "typing_extensions", "uuid"),
}

FOR_EVERY_PROGRAM = {
    *("ipc_channel", "ipc_channel._core", "ipc_channel.errors", "ipc_channel.ownership"),
    *("ipc_channel.channel", "ipc_channel.ends", "ipc_channel.sender", "ipc_channel.receiver"),
    *("ipc_channel.codecs", "ipc_channel.codecs.choice", "ipc_channel.codecs.frames", "ipc_channel.codecs.kinds"),
    *("ipc_channel.codecs.raw", "ipc_channel.codecs.reduction"),
    *("ipc_channel.processes", "ipc_channel.processes.fork"),
}

USE = """
with sender, receiver:
    sender.send(b"message")
    assert receiver.recv() == b"message"
    assert repr(sender)
    sender.clone().close()
    assert receiver.to_opaque().to({}).fileno() >= 0
"""


def imported_by(source: str) -> set[str]:
    """The modules that ``source`` imports in a fresh interpreter."""
    return set(
        run_snippet(
            f"import sys\nbefore = set(sys.modules)\n{source}\nprint(*sys.modules.keys() - before, sep='\\n')"
        ).stdout.split()
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    imported = imported_by("import ipc_channel")
    assert "ipc_channel" in imported
    assert imported.isdisjoint(HEAVY)


def test_importing_the_package_imports_of_it_what_every_program_needs() -> None:
    imported = imported_by("import ipc_channel")
    assert {name for name in imported if name.startswith("ipc_channel")} == FOR_EVERY_PROGRAM


@pytest.mark.parametrize("module", ["anyio", "asyncio", "logging", "msgspec", "multiprocessing", "rich"])
def test_the_check_sees_a_heavy_import(module: str) -> None:
    assert module in imported_by(f"import {module}")


def test_a_channel_of_bytes_needs_no_more() -> None:
    imported = imported_by("import ipc_channel\nsender, receiver = ipc_channel.bytes_channel()" + USE.format("bytes"))
    assert imported.isdisjoint(HEAVY)
    assert {name for name in imported if name.startswith("ipc_channel")} == FOR_EVERY_PROGRAM


def test_an_untyped_channel_imports_pickle_alone() -> None:
    imported = imported_by("import ipc_channel\nsender, receiver = ipc_channel.channel()" + USE.format("trusted=True"))
    assert imported & HEAVY == {"pickle"}


def test_a_typed_channel_imports_msgspec_and_never_pickle() -> None:
    imported = imported_by("import ipc_channel\nsender, receiver = ipc_channel.channel(bytes)" + USE.format("bytes"))
    with_msgspec = imported_by("import msgspec, msgspec.inspect, dataclasses")
    assert "msgspec" in imported
    assert imported & HEAVY <= with_msgspec
    assert "pickle" not in imported
    assert "ipc_channel.codecs.pickled" not in imported


@pytest.mark.parametrize("cls", ["ReceiverSet", "BytesOneShotServer", "Router"])
def test_a_child_imports_nothing_to_close_what_it_has_inherited(cls: str) -> None:
    source = f"""
        import os, sys, ipc_channel
        with ipc_channel.{cls}() as kept:
            before = set(sys.modules)
            if os.fork() == 0:
                ipc_channel.close_inherited(keep=[kept])
                os._exit(len(sys.modules.keys() - before))
            print(os.wait()[1])
    """
    assert run_snippet(textwrap.dedent(source)).stdout == "0\n"


@pytest.mark.parametrize("name", ipc.__all__)
def test_a_public_name_is_there_when_it_is_named(name: str) -> None:
    # Each in a process of its own: none relies on what another has imported.
    run_snippet(f"import ipc_channel as ipc\nassert {name!r} in dir(ipc)\nassert ipc.{name} is ipc.{name}")


def test_a_star_imports_what_the_package_exports() -> None:
    source = "from ipc_channel import *\nprint(sorted(name for name in globals() if not name.startswith('__')))"
    assert run_snippet(source).stdout == f"{sorted(ipc.__all__)}\n"


def test_help_shows_what_the_package_exports() -> None:
    shown = set(run_snippet("import ipc_channel\nhelp(ipc_channel)").stdout.replace("(", " ").split())
    assert set(ipc.__all__) - shown == set()


def test_what_the_package_does_not_export() -> None:
    with pytest.raises(AttributeError, match="module 'ipc_channel' has no attribute 'Rooter'"):
        ipc.Rooter  # noqa: B018
