"""From annotations to what Rust's serde makes of the same type: the nodes of a plan.

Everything is found out once, when a channel is made. What has no counterpart in Rust is a TypeError that names
the field.
"""

import dataclasses
import enum
import inspect
import ipaddress
import pathlib
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin

import msgspec

from ipc_channel._core import File, Memory
from ipc_channel.codecs.kinds import Kind, describe, kind_of
from ipc_channel.rust import Array, FixedBytes, Primitive, SocketAddrV4, SocketAddrV6, Some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Schema"]

_DEPTH = 100
"""How many types may stand inside one another before the innermost is seen to be the outermost."""

_BUILTIN: dict[Any, str] = {
    None: "unit",
    type(None): "unit",
    bool: "bool",
    int: "i64",
    float: "f64",
    str: "str",
    bytes: "bytes",
    bytearray: "bytearray",
}
_PACKED: dict[Any, int] = {ipaddress.IPv4Address: 4, ipaddress.IPv6Address: 16}
_FAMILIES: tuple[tuple[type[Any], ...], ...] = (
    (ipaddress.IPv4Address, ipaddress.IPv6Address),
    (SocketAddrV4, SocketAddrV6),
)
"""The enums of Rust's standard library that are unions of untagged classes here."""
_PATHS: tuple[Any, ...] = (pathlib.Path, pathlib.PurePath, pathlib.PosixPath, pathlib.PurePosixPath)
_CONTAINERS = (list, tuple, set, frozenset, dict)

_HINTS: dict[Any, str] = {
    "datetime.timedelta": "use ipc_channel.rust.Duration",
    "datetime.datetime": "use ipc_channel.rust.SystemTime, or a number or str as the Rust type has it",
    "collections.abc.Sequence": "use list or tuple",
    "collections.abc.Set": "use set or frozenset",
    "collections.abc.Mapping": "use dict",
    "builtins.memoryview": "use bytes",
    "builtins.complex": "use a tuple of two floats",
    "builtins.object": "Rust has a type for every value: write it",
    "typing.Any": "Rust has a type for every value: write it",
}


class Schema:
    """The nodes of a type."""

    def __init__(self, form: Any, handle: "Callable[[Kind, Any], tuple[Any, Any]]") -> None:
        """``handle`` gives the two functions that a node of an end or region needs, for its kind and the type of its
        messages (None if it has none).

        Raises TypeError if messages of type ``form`` have no counterpart in Rust.
        """
        self.nodes: list[tuple[Any, ...]] = []
        self.places: list[str] = []
        """What errors call the nodes."""
        self.parameters: list[Any] = []
        """The types of the messages of every end in it."""
        self._handle = handle
        self._named: dict[Any, int] = {}
        # To be looked at when everything is known: what becomes a key or an element of a set, and what is optional.
        self._hashed: list[int] = []
        self._optional: list[tuple[int, Any]] = []
        inner = _without_alias(form)
        cls: Any = get_origin(inner) or inner
        self.root: str = _name(cls) if _has_fields(cls) else "message"
        """What errors call the whole message."""
        self._node(form, self.root, _DEPTH)
        for optional, union in self._optional:
            if self.nodes[optional][0] in ("unit", "option"):
                raise TypeError(
                    f"{self.places[optional]}: None could mean two things in {describe(union)}; "
                    "use ipc_channel.rust.Option[...]"
                )
        for key in self._hashed:
            if not self._hashable(key, set()):
                raise TypeError(
                    f"{self.places[key]}: what is a key or in a set must be hashable in Python too: "
                    "use tuple, bytes, frozenset or a frozen Struct"
                )

    def _reserve(self, place: str) -> int:
        self.nodes.append(("unit",))
        self.places.append(place)
        return len(self.nodes) - 1

    def _node(self, form: Any, place: str, depth: int) -> int:
        """Add the nodes of a type, and return the first of them: it is the next one, or one that exists already."""
        if depth == 0:
            raise TypeError(f"{place}: {describe(form)} contains types without end")
        depth -= 1
        origin = get_origin(form)
        if origin is typing.Annotated:
            return self._annotated(form, place, depth)
        if origin is typing.Final:
            return self._node(get_args(form)[0], place, depth)
        if hasattr(form, "__supertype__"):  # NewType
            return self._node(form.__supertype__, place, depth)
        if form is Array or form is FixedBytes or origin is Array or origin is FixedBytes:
            return self._array(form, place, depth)
        if _is_alias(origin or form):
            return self._named_once(form, lambda: self._node(_value_of_alias(form), place, depth))
        if isinstance(form, TypeVar):
            raise TypeError(f"{place}: {form} stands for any type; write the class around it with a type, as in X[int]")
        kind = kind_of(form)
        if kind is not None:
            return self._end_or_region(kind, form, place)
        if origin in (Union, types.UnionType):
            return self._union(form, place, depth)
        if origin in _CONTAINERS:
            return self._container(origin, get_args(form), place, depth)
        return self._class(form, origin or form, place, depth)

    def _named_once(self, key: Any, make: "Callable[[], int]") -> int:
        """The node of a type that may contain itself."""
        try:
            found = self._named.get(key)
        except TypeError:  # an argument of a generic class is Annotated with something mutable
            key = repr(key)
            found = self._named.get(key)
        if found is None:
            self._named[key] = len(self.nodes)
            found = self._named[key] = make()
        return found

    def _annotated(self, form: Any, place: str, depth: int) -> int:
        primitives = [each for each in form.__metadata__ if isinstance(each, Primitive)]
        for each in form.__metadata__:
            if isinstance(each, msgspec.Meta) and any(
                getattr(each, name) is not None for name in _CONSTRAINTS if hasattr(each, name)
            ):
                raise TypeError(f"{place}: {each} is not checked for messages of Rust programs; check it yourself")
        if not primitives:
            return self._node(form.__origin__, place, depth)
        if len(primitives) > 1:
            raise TypeError(f"{place}: one type of {' and '.join(map(repr, primitives))}")
        node = self._reserve(place)
        (primitive,) = primitives
        if primitive.name == "os_string":
            # An enum of what operating systems have: the first variant is Unix's.
            inner = self._reserve(place)
            self.nodes[inner] = ("os_string",)
            self.nodes[node] = ("union", "OsString", [(0, str, inner)])
        else:
            self.nodes[node] = (primitive.name,)
        return node

    def _array(self, form: Any, place: str, depth: int) -> int:
        arguments = get_args(form)
        length = arguments[-1] if arguments else None
        if get_origin(length) is Literal:
            (length,) = get_args(length) if len(get_args(length)) == 1 else (None,)
        if type(length) is not int or length < 0:
            raise TypeError(
                f"{place}: {describe(form)} needs its length, as in Array[int, Literal[3]] or FixedBytes[Literal[32]]"
            )
        node = self._reserve(place)
        if get_origin(form) is FixedBytes:
            self.nodes[node] = ("fixed_bytes", length)
        else:
            self.nodes[node] = ("array", length, self._node(arguments[0], f"{place}[...]", depth))
        return node

    def _end_or_region(self, kind: Kind, form: Any, place: str) -> int:
        name = kind.cls.__name__
        if kind.made_from is File:
            raise TypeError(f"{place}: the Rust crate carries ends and shared memory, and no open files")
        parameter = None
        if kind.generic:
            (parameter,) = get_args(form) or (Any,)
            if parameter is Any:
                raise TypeError(f"{place}: {name} needs the type of its messages, as in {name}[int]")
            self.parameters.append(parameter)
        node = self._reserve(place)
        kind_of_node = "memory" if kind.made_from is Memory else "end"
        self.nodes[node] = (kind_of_node, *self._handle(kind, parameter))
        return node

    def _container(self, origin: Any, arguments: tuple[Any, ...], place: str, depth: int) -> int:
        node = self._reserve(place)
        if origin is dict:
            key = self._node(arguments[0], f"{place}.keys()", depth)
            self._hashed.append(key)
            self.nodes[node] = ("dict", key, self._node(arguments[1], f"{place}[...]", depth))
        elif origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
            parts = [self._node(part, f"{place}[{number}]", depth) for number, part in enumerate(arguments)]
            self.nodes[node] = ("tuple", parts)
        else:
            item = self._node(arguments[0], f"{place}[...]", depth)
            if origin in (set, frozenset):
                self._hashed.append(item)
            self.nodes[node] = ("row" if origin is tuple else origin.__name__, item)
        return node

    def _union(self, form: Any, place: str, depth: int) -> int:
        parts = [part for part in get_args(form) if part is not type(None)]
        if len(parts) < len(get_args(form)):
            node = self._reserve(place)
            if len(parts) == 1:
                part = _without_alias(parts[0])
                if (get_origin(part) or part) is Some:
                    inner = self._named_once(part, lambda: self._object(part, Some, place, depth))
                else:
                    inner = self._node(parts[0], place, depth)
                self._optional.append((inner, form))
            else:
                inner = self._variants(parts, place, depth)
            self.nodes[node] = ("option", inner)
            return node
        return self._variants(parts, place, depth)

    def _variants(self, parts: list[Any], place: str, depth: int) -> int:
        """An enum with data."""
        classes = list(_flat(parts, place, depth))
        name = " | ".join(describe(part) for part in classes)
        node = self._reserve(place)
        variants: dict[int, tuple[int, Any, int]] = {}
        for part in classes:
            cls = get_origin(part) or part
            tag = self._tag(part, classes, place)
            if tag in variants:
                other = describe(variants[tag][1])
                raise TypeError(f"{place}: {describe(cls)} and {other} have the same tag {tag}")
            if _extends(cls, msgspec.Struct):
                content = self._content(part, cls, place, depth)
            else:
                content = self._node(part, place, depth)
            variants[tag] = (tag, cls, content)
        self.nodes[node] = ("union", name, [variants[tag] for tag in sorted(variants)])
        return node

    def _tag(self, part: Any, parts: list[Any], place: str) -> int:
        """The index of an enum's variant."""
        for family in _FAMILIES:
            if part in family and all(each in family for each in parts):
                return family.index(part)
        cls = get_origin(part) or part
        if cls is Some:
            raise TypeError(f"{place}: Some stands beside None only")
        tag = _tag_of(cls)
        if type(tag) is not int or not 0 <= tag < 1 << 32:
            raise TypeError(
                f"{place}: a union is an enum of Rust's if each part is a Struct whose tag is the index of its "
                f"variant (class First(Struct, tag=0): ...), and {describe(part)} is none; wrap it in one"
            )
        return tag

    def _class(self, form: Any, cls: Any, place: str, depth: int) -> int:
        node: tuple[Any, ...] | None = None
        try:
            if cls in _BUILTIN:
                node = (_BUILTIN[cls],)
            elif cls in _PATHS:
                node = ("path", pathlib.Path if cls is pathlib.PosixPath else cls)
            elif cls in _PACKED:
                node = ("packed", _PACKED[cls], cls)
        except TypeError:  # not hashable: nothing that anybody would write
            pass
        if node is None and _extends(cls, enum.Enum):
            node = ("choice", cls, _members(cls, place))
        if node is not None:
            number = self._reserve(place)
            self.nodes[number] = node
            return number
        if not isinstance(cls, type):
            return self._refuse(form, place)
        if cls in _CONTAINERS:
            raise TypeError(f"{place}: {cls.__name__} needs the types of what is in it, as in list[int]")
        if cls is Some:
            raise TypeError(f"{place}: Some stands beside None only: use ipc_channel.rust.Option[...]")
        if _tag_of(cls) is not None:
            # Alone it is an enum with one variant that is known here. msgspec writes the tag of such a one, too.
            return self._named_once((form, "alone"), lambda: self._variants([form], place, depth))
        if _has_fields(cls):
            return self._content(form, cls, place, depth)
        return self._refuse(form, place)

    def _content(self, form: Any, cls: type[Any], place: str, depth: int) -> int:
        return self._named_once(form, lambda: self._object(form, cls, place, depth))

    def _object(self, form: Any, cls: type[Any], place: str, depth: int) -> int:
        node = self._reserve(place)
        names = _field_names(cls)
        # From here on errors name the class; by which way it was reached does not matter any more.
        name = _name(cls)
        hints = _hints(form, cls, place)
        for field in names:
            if field not in hints:
                raise TypeError(f"{name}.{field}: it has no type")
        keywords = _by_keyword(cls, names, name)
        fields = [self._node(hints[field], f"{name}.{field}", depth) for field in names]
        found = [_class_attribute(cls, field) for field in names]
        descriptors = None if None in found else found
        self.nodes[node] = ("object", cls, names, fields, keywords, descriptors)
        return node

    def _refuse(self, form: Any, place: str) -> NoReturn:
        origin: Any = get_origin(form) or form
        known = f"{getattr(origin, '__module__', '')}.{getattr(origin, '__qualname__', '')}"
        hint = _HINTS.get("typing.Any" if form is Any else known)
        raise TypeError(
            f"{place}: nothing in Rust's serde is known for {describe(form)}" + (f"; {hint}" if hint else "")
        )

    def _hashable(self, node: int, seen: set[int]) -> bool:
        if node in seen:
            return True
        seen.add(node)
        kind, *rest = self.nodes[node]
        if kind in ("list", "set", "dict", "bytearray", "memory"):
            return False
        if kind == "union":
            return all(self._hashable(content, seen) for _, _, content in rest[1])
        if kind == "tuple":
            return all(self._hashable(part, seen) for part in rest[0])
        if kind == "object":
            cls, _, fields, *_ = rest
            if issubclass(cls, msgspec.Struct):
                if not cls.__struct_config__.eq:
                    return True
                if not cls.__struct_config__.frozen:
                    return False
            if cls.__hash__ is None:
                return False
            return cls.__hash__ is object.__hash__ or all(self._hashable(field, seen) for field in fields)
        if kind in ("option", "row", "array", "frozenset"):
            return self._hashable(rest[-1], seen)
        return True


_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")


def _name(cls: type[Any]) -> str:
    """What errors call a class."""
    return cls.__qualname__.rpartition("<locals>.")[2]


def _has_fields(cls: Any) -> bool:
    """Whether it is a Struct, a dataclass or a NamedTuple."""
    if _extends(cls, tuple):
        return hasattr(cls, "_fields")
    return _extends(cls, msgspec.Struct) or (_extends(cls, object) and dataclasses.is_dataclass(cls))


def _extends(cls: Any, base: type[Any]) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def _flat(parts: "Iterable[Any]", place: str, depth: int) -> "Iterator[Any]":
    """The parts of a union, and of the unions that stand in it under a name."""
    for part in map(_without_alias, parts):
        if get_origin(part) in (Union, types.UnionType):
            if depth == 0:
                raise TypeError(f"{place}: {describe(part)} contains types without end")
            yield from _flat(get_args(part), place, depth - 1)
        else:
            yield part


def _without_alias(form: Any) -> Any:
    """Without Annotated, Final, NewType and ``type`` aliases."""
    for _ in range(_DEPTH):
        origin = get_origin(form)
        if origin in (typing.Annotated, typing.Final):
            form = get_args(form)[0]
        elif hasattr(form, "__supertype__"):
            form = form.__supertype__
        elif _is_alias(origin or form) and (origin or form) not in (Array, FixedBytes):
            form = _value_of_alias(form)
        else:
            break
    return form


def _is_alias(form: Any) -> bool:
    """Whether it was made by a ``type`` statement or one of the classes that do the same."""
    return hasattr(form, "__value__") and not isinstance(form, type)


def _value_of_alias(form: Any) -> Any:
    alias = get_origin(form) or form
    names = {alias.__name__: alias, **{each.__name__: each for each in alias.__type_params__}}
    try:
        value = _evaluated({"value": alias.__value__}, alias.__name__, alias.__module__, names)["value"]
    except Exception as error:
        raise TypeError(f"what {alias.__name__} stands for cannot be understood: {error}") from error
    return _substituted(value, dict(zip(alias.__type_params__, get_args(form), strict=False)))


def _substituted(form: Any, arguments: dict[Any, Any]) -> Any:
    """The type with other types for its type variables, as far as those are known."""
    if isinstance(form, TypeVar):
        return arguments.get(form, form)
    parameters: tuple[Any, ...] = () if isinstance(form, type) else getattr(form, "__parameters__", ())
    if not any(parameter in arguments for parameter in parameters):
        return form
    return cast("Any", form)[tuple(arguments.get(parameter, parameter) for parameter in parameters)]


def _hints(form: Any, cls: type[Any], place: str) -> dict[str, Any]:
    """The types of a class's fields, with those of its type variables that are known."""
    arguments: dict[type[Any], dict[Any, Any]] = {}

    def follow(base: Any, known: dict[Any, Any]) -> None:
        origin: Any = get_origin(base) or base
        given = [_substituted(argument, known) for argument in get_args(base)]
        own = dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))
        if origin is typing.Generic or arguments.get(origin):
            return
        arguments[origin] = own
        parents: tuple[Any, ...] = origin.__dict__.get("__orig_bases__", origin.__bases__)
        for parent in parents:
            if isinstance(get_origin(parent) or parent, type):
                follow(parent, own)

    follow(form, {})
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        names = {base.__name__: base, **{each.__name__: each for each in getattr(base, "__type_params__", ())}}
        try:
            own = inspect.get_annotations(base)
            found = _evaluated(own, base.__name__, base.__module__, names)
        except Exception as error:
            raise TypeError(f"{place}: the annotations of {describe(base)} cannot be understood: {error}") from error
        known = arguments.get(base, {})
        hints.update((name, _substituted(hint, known)) for name, hint in found.items())
    return hints


def _evaluated(annotations: dict[str, Any], name: str, module: str, names: dict[str, Any]) -> dict[str, Any]:
    """Annotations without quotes, those inside of others included, as they are understood in a module."""
    # A class of its own, so that inherited annotations stay with the class that has them, and its variables.
    holder = type(name, (), {"__annotations__": annotations, "__module__": module})
    surroundings = getattr(sys.modules.get(module), "__dict__", {})
    return typing.get_type_hints(holder, {**names, **surroundings}, {}, include_extras=True)


def _field_names(cls: type[Any]) -> list[str]:
    if issubclass(cls, msgspec.Struct):
        return list(cls.__struct_fields__)
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return list(cast("Any", cls)._fields)


def _by_keyword(cls: type[Any], names: list[str], name: str) -> bool:
    """Whether the constructor takes the fields by keyword only. TypeError if it does not take them."""
    try:
        parameters = inspect.signature(cls).parameters
    except Exception:  # noqa: BLE001  msgspec evaluates annotations for it, and knows less of them than `_hints`
        if issubclass(cls, msgspec.Struct):
            return True  # which every Struct understands
        raise TypeError(f"{name}: its constructor does not say what it takes") from None
    for field in names:
        if field not in parameters:
            raise TypeError(f"{name}.{field}: the constructor of {name} does not take it")
    for parameter in parameters.values():
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if needed and parameter.name not in names:
            raise TypeError(f"{name}: its constructor needs {parameter.name}, which is none of its fields")
    positional = [each.name for each in parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    return positional[: len(names)] != names


def _class_attribute(cls: type[Any], name: str) -> Any:
    """What a class has under that name, as it is."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _tag_of(cls: Any) -> Any:
    """The tag of a Struct; None for anything else."""
    return cls.__struct_config__.tag if _extends(cls, msgspec.Struct) else None


def _members(cls: Any, place: str) -> list[enum.Enum]:
    if issubclass(cls, enum.Flag):
        raise TypeError(f"{place}: flags like {cls.__qualname__} are an integer in Rust, and which one is not known")
    members: list[enum.Enum] = list(cls)
    if not members:
        raise TypeError(f"{place}: the enum {cls.__qualname__} has no members")
    return members
