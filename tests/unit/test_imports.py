"""``import ipc_channel`` is light: whatever is heavy waits until it is used."""

from __future__ import annotations

import json

import pytest

from tests.support.snippets import run_snippet

HEAVY = ("anyio", "asyncio", "concurrent", "multiprocessing", "numpy", "rich", "subprocess", "trio")


def imported_by(source: str) -> set[str]:
    printed = run_snippet(f"import json, sys\n{source}\nprint(json.dumps(list(sys.modules)))").stdout
    return {name.partition(".")[0] for name in json.loads(printed)}


def test_importing_the_package_imports_nothing_heavy() -> None:
    imported = imported_by("import ipc_channel")
    assert "ipc_channel" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["anyio", "asyncio", "multiprocessing", "rich"])
def test_the_check_sees_a_heavy_import(module: str) -> None:
    assert module in imported_by(f"import {module}")


def test_sending_and_receiving_imports_nothing_heavy() -> None:
    imported = imported_by(
        "import ipc_channel\n"
        "sender, receiver = ipc_channel.channel(list[int])\n"
        "with sender, receiver:\n"
        "    sender.send([1, 2])\n"
        "    assert receiver.recv() == [1, 2]\n"
    )
    assert imported.isdisjoint(HEAVY)


def test_the_package_offers_only_what_it_exports() -> None:
    source = "import ipc_channel as ipc\nprint([name for name in ipc.__all__ if not hasattr(ipc, name)])"
    assert run_snippet(source).stdout == "[]\n"
