"""Message contents."""

from __future__ import annotations

import functools
from typing import Final

MEDIUM: Final = 64 * 1024
BIG: Final = 1024 * 1024
HUGE: Final = 50 * 1024 * 1024


@functools.lru_cache(maxsize=8)
def pattern(size: int) -> bytes:
    """Bytes of which no part looks like another."""
    words = b"".join(number.to_bytes(4, "little") for number in range(min(size, BIG) // 4 + 1))
    return (words * (size // len(words) + 1))[:size]
