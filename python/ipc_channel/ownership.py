"""What every object that owns a descriptor has in common."""

import warnings
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Closing", "Owner"]


class Closing:
    """Closed by ``with``, and never copied by accident."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def closed(self) -> bool: ...
        def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: "type[BaseException] | None",
        exception: BaseException | None,
        traceback: "TracebackType | None",
        /,
    ) -> None:
        self.close()

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be copied: senders and shared memory have clone() for that")

    def __deepcopy__(self, memo: dict[int, Any], /) -> NoReturn:
        self.__copy__()


class Owner(Closing):
    """Also complains when it is forgotten: an open end keeps its peer from seeing the end of the stream."""

    __slots__ = ()

    # The default argument keeps the function while the interpreter shuts down and clears its modules.
    def __del__(self, warn: Any = warnings.warn) -> None:
        if not self.closed:
            warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()
