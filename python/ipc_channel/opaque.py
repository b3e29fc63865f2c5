"""Messages that came without their type."""

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ipc_channel import _core
from ipc_channel.codecs.choice import UNSET, chosen_codec
from ipc_channel.codecs.kinds import LABEL_NAMES
from ipc_channel.ownership import Closing
from ipc_channel.receiver import OpaqueReceiver
from ipc_channel.sender import OpaqueSender

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from ipc_channel._core import Delivery

__all__ = ["OpaqueMessage", "OpaqueReceiver", "OpaqueSender"]

T = TypeVar("T")


class OpaqueMessage(Closing):
    """A message of an opaque receiver in a ReceiverSet, not decoded yet. Decode it once, or close it.

    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(str)
    >>> with ipc.ReceiverSet() as receivers, sender:
    ...     key = receivers.add(receiver.to_opaque())
    ...     sender.send("hello")
    ...     [event] = receivers.select()
    ...     event.message.to(str)
    'hello'
    """

    __slots__ = ("_delivery", "_label")

    def __init__(self, delivery: "Delivery", label: int) -> None:
        self._delivery: Delivery | None = delivery
        self._label = label

    @overload
    def to(self, message_type: "TypeForm[T]", /) -> T: ...
    @overload
    def to(self, /, *, trusted: Literal[True]) -> Any: ...
    def to(self, message_type: Any = UNSET, /, *, trusted: bool = False) -> Any:
        """Decode it: ``to(T)`` from a ``channel(T)``, ``to(trusted=True)`` from ``channel()``, ``to(bytes)`` from a
        ``bytes_channel()``.

        Raises TypeError, and leaves the message as it is, if it is of another kind; DecodeError, after which
        the message is gone; ValueError if it was decoded or closed before.
        """
        if self._delivery is None:
            raise ValueError("this message was decoded or closed before")
        codec = chosen_codec(self._label, message_type, trusted, repr(self))
        delivery, self._delivery = self._delivery, None
        return _core.decode(codec, delivery)

    @property
    def closed(self) -> bool:
        """Whether it was decoded or closed."""
        return self._delivery is None

    def close(self) -> None:
        """Drop the message and close the handles in it."""
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.close()

    def __repr__(self) -> str:
        if self._delivery is None:
            return "<OpaqueMessage closed>"
        return f"<OpaqueMessage of {len(self._delivery)} bytes, {LABEL_NAMES.get(self._label, 'unknown')}>"
