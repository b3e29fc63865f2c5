"""The examples in the docstrings do what they show, and every public class and function is in one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from typing import Any

import pytest

import ipc_channel
from tests.docs.programs import DOCUMENTS, programs

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


def is_exception(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Exception)


@pytest.mark.parametrize("name", [name for name, _ in public_things()])
def test_is_documented(name: str) -> None:
    documentation = inspect.getdoc(getattr(ipc_channel, name))
    assert documentation is not None
    # Not the one that dataclass writes: the signature.
    assert not documentation.startswith(f"{name}(")


def examples() -> str:
    """All that the documentation runs: the examples of the docstrings and the programs of the documents."""
    finder = doctest.DocTestFinder()
    found = {
        example.source
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
        for example in test.examples
    }
    return "\n".join([*found, *(program.source for document in DOCUMENTS for program in programs(document))])


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """The words in the examples."""
    return set(re.findall(r"\w+", examples()))


MADE_BY = {"End": "END", "Passing": "passing"}
"""Classes that nobody names: what stands in an example instead."""


@pytest.mark.parametrize("name", [name for name, thing in public_things() if not is_exception(thing)])
def test_has_an_example(name: str, shown: set[str]) -> None:
    thing = getattr(ipc_channel, name)
    members = (
        [member for class_ in inspect.getmro(thing) for member in vars(class_).values()]
        if inspect.isclass(thing)
        else []
    )
    own = any(">>> " in (inspect.getdoc(documented) or "") for documented in [thing, *members])
    assert own or MADE_BY.get(name, name) in shown
