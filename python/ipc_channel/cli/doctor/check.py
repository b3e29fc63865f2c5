"""What one check of the doctor found."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["fine", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Check:
    """One fact about this machine."""

    group: str
    name: str
    value: str
    used_for: str
    """What the package needs it for."""
    status: Status = "fine"
    """A warning is a limit that bites in some uses; a failure is something that does not work."""
    advice: str = ""
    """What to do about a warning or a failure."""
