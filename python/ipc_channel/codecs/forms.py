"""What a type says about the messages of a typed channel, found out once, when the channel is made."""

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from typing import Any, Union, cast, get_args, get_origin

import msgspec
from msgspec import inspect

from ipc_channel.codecs.kinds import describe, kind_of

_WITH_FIELDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)


def examine(form: Any) -> bool:
    """Check that msgspec and this package can carry every message of type ``form``.

    Returns whether such messages can hold handles. Raises TypeError, naming the part that cannot be carried.
    """
    carries, parameters = _examine_one(form)
    seen = [form]
    # The messages of the ends inside are checked as well, so that a mistake shows here and not at the receiver.
    # A list and a loop, since `Node` may hold a `Sender[Node]`.
    while parameters:
        parameter = parameters.pop()
        if parameter not in seen:
            seen.append(parameter)
            parameters += _examine_one(parameter)[1]
    return carries


def _examine_one(form: Any) -> tuple[bool, list[Any]]:
    """Whether messages of this type hold handles, and the types of the messages of the ends inside."""
    try:
        root = inspect.type_info(form)
    except TypeError as error:
        if "custom type" in str(error):
            raise TypeError(
                f"{describe(form)}: in a union, an end, SharedMemory or Fd may stand beside None only; "
                "wrap it in a tagged Struct (class Reply(Struct, tag=True): to: Sender[Answer]) "
                f"and use that in the union ({error})"
            ) from None
        raise
    carries = False
    parameters = list(_parameters_of_ends(form))
    seen: set[int] = set()
    pending = [root]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, inspect.CustomType):
            if kind_of(node.cls) is None:
                raise TypeError(
                    f"{describe(form)} contains {describe(node.cls)}, which msgspec cannot validate; "
                    "use types that msgspec knows, or channel() without a type for peers that you trust"
                )
            carries = True
        if isinstance(node, _WITH_FIELDS):
            owner = get_origin(node.cls) or node.cls
            for hint in typing.get_type_hints(owner, include_extras=True).values():
                parameters += _parameters_of_ends(hint)
        pending += _parts(node)
    return carries, parameters


def _parts(node: inspect.Type) -> "Iterator[inspect.Type]":
    """The types that a type is made of."""
    for name in node.__struct_fields__:
        value: object = getattr(node, name)
        for part in cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,):
            if isinstance(part, inspect.Field):
                yield part.type
            elif isinstance(part, inspect.Type):
                yield part


def _parameters_of_ends(form: Any) -> "Iterator[Any]":
    """The types of the messages of every end that is written in ``form`` itself, fields not followed.

    Raises TypeError for an end that says nothing about its messages.
    """
    kind = kind_of(form)
    if kind is None:
        inner = getattr(form, "__supertype__", None) or getattr(form, "__value__", None)
        for part in (inner,) if inner is not None else get_args(form):
            yield from _parameters_of_ends(part)
    elif kind.generic:
        (parameter,) = get_args(form) or (Any,)
        name = kind.cls.__name__
        if parameter is Any:
            raise TypeError(
                f"{name} in a typed message needs the type of its messages, as in {name}[int]: "
                f"a plain {name} or {name}[Any] would be one that unpickles, which typed channels never carry"
            )
        # A type variable is known only to the class around it; the message that arrives settles it.
        open_ended = get_origin(parameter) is not None and bool(getattr(parameter, "__parameters__", None))
        if not isinstance(parameter, typing.TypeVar) and not open_ended:
            yield parameter


def accepted(form: Any) -> tuple[type, ...] | None:
    """The classes that a message of type ``form`` is an instance of; None if that cannot be said.

    A quick check of the outermost type on ``send``. It never refuses what msgspec would encode as ``form``.
    """
    form = _unwrapped(form)
    if form is None or form is type(None):
        return (type(None),)
    kind = kind_of(form)
    if kind is not None:
        return (kind.cls,)
    origin = get_origin(form)
    if origin is typing.Literal:
        return tuple({type(value) for value in cast("tuple[object, ...]", get_args(form))})
    if origin in (Union, types.UnionType):
        parts = [accepted(part) for part in get_args(form)]
        found = {cls for part in parts if part is not None for cls in part}
        return None if None in parts else tuple(sorted(found, key=lambda cls: cls.__qualname__))
    if not isinstance(origin or form, type) or form is object:
        return None
    cls: type[Any] = origin or form
    if cls is float:
        return (float, int)
    if cls in (bytes, bytearray, memoryview):
        return (bytes, bytearray, memoryview)
    if typing.is_typeddict(cls):
        return (dict,)
    if cls.__module__ == collections.abc.__name__:
        return (cls,)
    known = issubclass(cls, _ENCODED) or dataclasses.is_dataclass(cls) or hasattr(cls, "__attrs_attrs__")
    return (cls,) if known or cls.__module__ in _STANDARD else None


_ENCODED: tuple[type[Any], ...] = (
    *(bool, int, str, list, tuple, set, frozenset, dict),
    *(msgspec.Struct, msgspec.Raw, msgspec.msgpack.Ext, msgspec.UnsetType, enum.Enum),
)
_STANDARD = ("datetime", "decimal", "_decimal", "uuid")


def _unwrapped(form: Any) -> Any:
    """Without Annotated, Final, NewType and ``type`` aliases."""
    while True:
        origin = get_origin(form)
        if origin is typing.Annotated or origin is typing.Final:
            form = get_args(form)[0]
        elif hasattr(form, "__supertype__"):
            form = form.__supertype__
        elif hasattr(form, "__value__") and not isinstance(form, type):
            form = form.__value__
        else:
            return form
