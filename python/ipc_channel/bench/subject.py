"""What is measured: subjects, their metrics, and the targets that their figures are held to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ipc_channel.bench.units import Unit

__all__ = [
    "OURS",
    "REFERENCES",
    "Effort",
    "Figures",
    "Measure",
    "Medians",
    "Metric",
    "Subject",
    "Target",
    "Unavailable",
]

OURS: Final = "ours"
"""The key of this package among the rivals."""

REFERENCES: Final = frozenset({"memcpy", "msgspec", "seqpacket", "sockets"})
"""What a figure is held against without being a peer: nobody would use it instead of a channel."""

Figures = dict[str, float]
"""Values by metric, in units of one."""


class Unavailable(Exception):
    """This cannot be measured here; the text says why, for the table."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a measurement may take."""

    seconds: float
    """Of the timed part."""
    quick: bool = False
    """Only to see that everything works: large counts become small ones, and the figures mean nothing."""
    rust_peer: str | None = None
    """The program that measures the Rust crate, if there is one."""


Measure = Callable[[Effort], Figures]
"""Takes one measurement, in a process of its own. May raise Unavailable, and anything if something is wrong."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a subject: a row of the table."""

    name: str
    """Empty if it is the only one."""
    unit: Unit


Medians = Mapping[str, Mapping[str, float]]
"""The medians of the rounds: by rival, then by metric."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure of ours should reach."""

    metric: str
    """The row beside which it stands."""
    text: str
    reached: Callable[[Medians], float | None]
    """What is compared with the bound, from the medians. None: it cannot be said, since a figure is missing."""
    bound: float
    unit: Unit
    """Of the bound and of what was reached."""
    at_least: bool
    """Else at most."""

    def met(self, reached: float) -> bool:
        """Whether that is good enough."""
        return reached >= self.bound if self.at_least else reached <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something worth measuring, in the same way for everybody who can do it."""

    key: str
    """For the worker's command line and the JSON."""
    name: str
    family: str
    what: str
    """Exactly what is timed, in a sentence or two."""
    metrics: Sequence[Metric]
    measures: Mapping[str, Measure] = field(repr=False)
    """By rival, in the order of the table."""
    targets: Sequence[Target] = ()
    most_rounds: int | None = None
    """For a measurement that is long and steady."""
    timeout: float = 60.0
    """Seconds after which a measurement is given up."""
    keeps_memory: bool = False
    """Whether the C library keeps what is freed, for everybody. By default it may give a large block back to the
    kernel and take it anew for each message, and whether it does depends on what else happens to lie in memory: that
    would be measured instead of the message."""
    chart: Sequence[str] = ()
    """The metrics that the picture shows."""

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return next(metric for metric in self.metrics if metric.name == name)
