"""Figures for people."""

from enum import Enum
from typing import Final

__all__ = ["Unit", "digits", "shown"]


class Unit(Enum):
    """What a figure counts. All are in units of one: seconds, not microseconds."""

    RATE = "1/s"
    """Messages or requests in a second; more is better."""
    THROUGHPUT = "B/s"
    """Bytes in a second; more is better."""
    TIME = "s"
    """Less is better."""
    BYTES = "B"
    """Memory; less is better."""
    TIMES = "×"
    """A ratio; the target says which way is better."""

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self in (Unit.RATE, Unit.THROUGHPUT)


_LARGE: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY: Final = ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"))
_SMALL: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def shown(value: float, unit: Unit) -> str:
    """Three digits and a unit: ``14.2 M/s``, ``310 ns``, ``6.58 GB/s``."""
    match unit:
        case Unit.TIMES:
            return f"{digits(value)} ×"
        case Unit.TIME:
            scale, name = next(((scale, name) for scale, name in _SMALL if value >= scale * 0.9995), _SMALL[-1])
            return f"{digits(value / scale)} {name}"
        case Unit.RATE:
            scale, name = _prefix(value)
            return f"{digits(value / scale)} {name}/s"
        case Unit.THROUGHPUT:
            scale, name = _prefix(value)
            return f"{digits(value / scale)} {name}B/s"
        case Unit.BYTES:
            scale, name = next(((scale, name) for scale, name in _BINARY if value >= scale * 0.9995), (1, ""))
            return f"{digits(value / scale)} {name}B"


def _prefix(value: float) -> tuple[float, str]:
    return next(((scale, name) for scale, name in _LARGE if value >= scale * 0.9995), (1.0, ""))


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"
