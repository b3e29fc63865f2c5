"""The examples in the docstrings do what they show, and every public class and function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import ipc_channel

MODULES = ["ipc_channel"] + [
    module.name
    for module in pkgutil.walk_packages(ipc_channel.__path__, "ipc_channel.")
    if not module.name.endswith("__main__")  # importing that one runs it
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def public_things() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in ipc_channel.__all__:
        thing = getattr(ipc_channel, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            found.append((name, thing))
    return found


@pytest.mark.parametrize("name", [name for name, _ in public_things()])
def test_is_documented(name: str) -> None:
    documentation = inspect.getdoc(getattr(ipc_channel, name))
    assert documentation is not None
    # Not the one that dataclass writes: the signature.
    assert not documentation.startswith(f"{name}(")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, thing in public_things()
        if not (inspect.isclass(thing) and issubclass(thing, Exception)) and not inspect.isabstract(thing)
    ],
)
def test_has_an_example(name: str) -> None:
    thing = getattr(ipc_channel, name)
    documentations = [inspect.getdoc(thing) or ""]
    if inspect.isclass(thing):
        documentations += [inspect.getdoc(member) or "" for member in vars(thing).values()]
    assert any(">>> " in documentation for documentation in documentations)
