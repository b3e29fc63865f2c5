"""What a child made by ``fork`` should do first."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ipc_channel import _core

if TYPE_CHECKING:
    from typing import TypeAlias

    from ipc_channel.one_shot import BytesOneShotServer, OneShotServer
    from ipc_channel.receiver_set import ReceiverSet
    from ipc_channel.router import Router

    Keepable: TypeAlias = (
        _core.SenderEnd | _core.ReceiverEnd | ReceiverSet[Any] | OneShotServer[Any] | BytesOneShotServer | Router
    )
    Inheritable: TypeAlias = _core.SenderEnd | _core.ReceiverEnd | _core.ReceiverSetCore | _core.Listener

__all__ = ["close_inherited"]


def close_inherited(keep: "Iterable[Keepable]" = ()) -> int:
    """In a child made by fork: close every end that was inherited, except those in ``keep``.

    After a fork parent and child both hold every end, so a stream ends only when both have closed its senders.
    A child that keeps what it uses and closes the rest lets everybody see the ends of streams. Ends that were
    made in this process are never closed by this. Shared memory and files are no ends and stay.

    Args:
        keep: Senders, receivers, receiver sets and one-shot servers. A router has nothing inherited to keep,
            since it starts anew in the child.

    Returns:
        How many were closed; 0 in a process that was not forked.

    Raises:
        TypeError: ``keep`` holds something else.

    >>> import os
    >>> import ipc_channel as ipc
    >>> sender, receiver = ipc.channel(str)
    >>> if (child := os.fork()) == 0:
    ...     ipc.close_inherited(keep=[sender])
    ...     sender.send("hello")
    ...     os._exit(0)
    >>> sender.close()
    >>> with receiver:
    ...     list(receiver)
    ['hello']
    >>> _ = os.waitpid(child, 0)
    """
    return _core.close_inherited([core for kept in keep for core in _inherited(kept)])


def _inherited(kept: Any) -> "list[Inheritable]":
    """What would be closed of something that is to be kept.

    The classes that are no ends say it themselves: a new child should not have to import what it does not use.
    """
    if isinstance(kept, _core.SenderEnd | _core.ReceiverEnd):
        return [kept]
    if not hasattr(kept, "_inherited"):
        raise TypeError(f"a {type(kept).__name__} is not something that close_inherited could close")
    inherited: list[Inheritable] = kept._inherited()
    return inherited
