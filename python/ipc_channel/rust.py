"""Types for messages of Rust programs: what Python has no type of its own for.

They are for the annotations of messages whose other end is a Rust program. To Python and to type checkers they are
ordinary types: a ``u8`` is an int, a ``char`` is a str.

>>> from msgspec import Struct
>>> from ipc_channel.rust import f32, u8, u16
>>> class Pixel(Struct):
...     position: tuple[u16, u16]
...     color: tuple[u8, u8, u8]
...     depth: f32
"""

import datetime
import ipaddress
import pathlib
from typing import Annotated, Final, Generic, NamedTuple, Self, TypeAlias, TypeVar, Union

from msgspec import Struct
from msgspec.structs import force_setattr
from typing_extensions import TypeAliasType

__all__ = [
    "Array",
    "Duration",
    "Err",
    "FixedBytes",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "Ok",
    "Option",
    "OsString",
    "PathBuf",
    "Result",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "Some",
    "SystemTime",
    "char",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "isize",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
]

T = TypeVar("T")
E = TypeVar("E")
N = TypeVar("N")


class Primitive(Struct, frozen=True):
    """What marks an annotation as one of Rust's types."""

    name: str
    """A kind of node of a :class:`ipc_channel._core.RustPlan`."""

    def __repr__(self) -> str:
        return self.name


u8: TypeAlias = Annotated[int, Primitive("u8")]
u16: TypeAlias = Annotated[int, Primitive("u16")]
u32: TypeAlias = Annotated[int, Primitive("u32")]
u64: TypeAlias = Annotated[int, Primitive("u64")]
u128: TypeAlias = Annotated[int, Primitive("u128")]
usize: TypeAlias = Annotated[int, Primitive("u64")]
i8: TypeAlias = Annotated[int, Primitive("i8")]
i16: TypeAlias = Annotated[int, Primitive("i16")]
i32: TypeAlias = Annotated[int, Primitive("i32")]
i64: TypeAlias = Annotated[int, Primitive("i64")]
i128: TypeAlias = Annotated[int, Primitive("i128")]
isize: TypeAlias = Annotated[int, Primitive("i64")]
f32: TypeAlias = Annotated[float, Primitive("f32")]
"""A float that is rounded to the nearest ``f32`` on its way."""
f64: TypeAlias = Annotated[float, Primitive("f64")]
char: TypeAlias = Annotated[str, Primitive("char")]
"""A str of one character that is no surrogate."""
OsString: TypeAlias = Annotated[str, Primitive("os_string")]
"""A str as ``os.fsdecode`` makes it: bytes that are no UTF-8 are surrogates."""
PathBuf: TypeAlias = pathlib.Path
"""A path that is UTF-8: no other one can be sent or received, in Rust either."""

Array = TypeAliasType("Array", tuple[T, ...], type_params=(T, N))
"""``[T; n]``, an array without a length in front: a tuple of always n items. ``Array[f32, Literal[3]]``."""

FixedBytes = TypeAliasType("FixedBytes", bytes, type_params=(N,))
"""``[u8; n]`` as bytes: ``FixedBytes[Literal[32]]``."""


class Some(Struct, Generic[T], frozen=True):
    """A value that is there, where ``None`` would not tell apart what is missing. See :data:`Option`."""

    value: T


Option: TypeAlias = Union[Some[T], None]  # noqa: UP007  both checkers subscript this one
"""``Option<T>`` as ``Some(value)`` or None. Plain ``T | None`` does as well, unless None is a value of ``T``:
``Option<Option<u8>>`` is ``Option[u8 | None]`` or ``Option[Option[u8]]``.
"""


class Ok(Struct, Generic[T], frozen=True, tag=0):
    """The good case of a :data:`Result`."""

    value: T


class Err(Struct, Generic[E], frozen=True, tag=1):
    """The bad case of a :data:`Result`."""

    error: E


Result: TypeAlias = Union[Ok[T], Err[E]]  # noqa: UP007
"""``Result<T, E>``: ``Result[int, str]`` is ``Ok(5)`` or ``Err("no number")``.

To mypy this and :data:`Option` are types in annotations. As the argument of ``channel`` they need a name:
``Outcome: TypeAlias = Result[int, str]``.
"""

_SECOND: Final = 1_000_000_000
"""In nanoseconds."""


class Duration(Struct, frozen=True, order=True):
    """``std::time::Duration``, exact to the nanosecond.

    >>> import datetime
    >>> Duration.from_timedelta(datetime.timedelta(seconds=1.5))
    Duration(seconds=1, nanoseconds=500000000)
    >>> Duration(0, 2_500_000).to_timedelta()
    datetime.timedelta(microseconds=2500)
    """

    seconds: u64 = 0
    nanoseconds: u32 = 0

    def __post_init__(self) -> None:
        _carry(self, 1 << 64)

    @classmethod
    def from_timedelta(cls, span: datetime.timedelta, /) -> Self:
        """The same span. ValueError if it is negative."""
        microseconds = span // datetime.timedelta(microseconds=1)
        return cls(microseconds // 1_000_000, microseconds % 1_000_000 * 1000)

    def to_timedelta(self) -> datetime.timedelta:
        """The same span without what is less than a microsecond. OverflowError beyond 999999999 days."""
        return datetime.timedelta(seconds=self.seconds, microseconds=self.nanoseconds // 1000)


class SystemTime(Struct, frozen=True, order=True):
    """``std::time::SystemTime``, exact to the nanosecond: what has passed since the start of 1970, UTC.

    >>> import datetime
    >>> SystemTime(1_000_000_000).to_datetime()
    datetime.datetime(2001, 9, 9, 1, 46, 40, tzinfo=datetime.timezone.utc)
    >>> SystemTime.from_datetime(datetime.datetime(2001, 9, 9, 1, 46, 40, tzinfo=datetime.timezone.utc)).seconds
    1000000000
    """

    seconds: u64 = 0
    nanoseconds: u32 = 0

    def __post_init__(self) -> None:
        _carry(self, 1 << 63)

    @classmethod
    def from_datetime(cls, time: datetime.datetime, /) -> Self:
        """The same time. ValueError if it is before 1970 or has no time zone."""
        if time.tzinfo is None:
            raise ValueError("a time without a time zone may be any")
        span = Duration.from_timedelta(time - _EPOCH)
        return cls(span.seconds, span.nanoseconds)

    def to_datetime(self) -> datetime.datetime:
        """The same time, in UTC, without what is less than a microsecond. OverflowError beyond the year 9999."""
        return _EPOCH + Duration(self.seconds, self.nanoseconds).to_timedelta()


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _carry(time: Duration | SystemTime, end: int) -> None:
    """Whole seconds of the nanoseconds become seconds, as in Rust. ValueError from ``end`` seconds on."""
    more, nanoseconds = divmod(time.nanoseconds, _SECOND)
    if more:
        force_setattr(time, "seconds", time.seconds + more)
        force_setattr(time, "nanoseconds", nanoseconds)
    if not 0 <= time.seconds < end:
        raise ValueError(f"{type(time).__name__} is 0 to {end - 1} seconds, not {time.seconds}")


Ipv4Addr: TypeAlias = ipaddress.IPv4Address
Ipv6Addr: TypeAlias = ipaddress.IPv6Address
"""Without a scope: Rust's has none."""
IpAddr: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class SocketAddrV4(NamedTuple):
    """``std::net::SocketAddrV4``."""

    ip: ipaddress.IPv4Address
    port: u16


class SocketAddrV6(NamedTuple):
    """``std::net::SocketAddrV6``; what it has besides address and port, serde leaves out."""

    ip: ipaddress.IPv6Address
    port: u16


SocketAddr: TypeAlias = SocketAddrV4 | SocketAddrV6
