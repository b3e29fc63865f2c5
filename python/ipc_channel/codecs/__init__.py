"""From messages to bytes and handles, and back: one module a codec.

:mod:`~ipc_channel.codecs.typed` (msgspec), :mod:`~ipc_channel.codecs.pickled` (pickle 5) and
:mod:`~ipc_channel.codecs.raw` (bytes) are what the extension module calls from inside ``send`` and ``recv``.
"""
