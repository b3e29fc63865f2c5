"""What a run has measured, on its way to the table, the JSON and the picture."""

from pathlib import Path
from typing import Final

import msgspec

from ipc_channel.bench.units import Unit

__all__ = ["Contestant", "Machine", "Measured", "Results", "Row", "Verdict", "load", "to_json"]

_FORMAT: Final = 1


class Contestant(msgspec.Struct, frozen=True):
    """Somebody who has a column."""

    key: str
    title: str
    column: str
    peer: bool
    """Whether "the fastest peer" can be this one."""
    version: str | None
    missing: str | None
    """Why it was not measured."""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    """Those that the measurements were allowed to use."""
    memory: int
    kernel: str
    python: str
    load: float
    """How many processes, on average, were running in the minute before it all began."""


class Verdict(msgspec.Struct, frozen=True):
    """A target, and what was reached."""

    text: str
    unit: Unit
    reached: float | None
    """None: it cannot be said, since a figure is missing."""
    met: bool | None


class Row(msgspec.Struct):
    """One metric."""

    name: str
    unit: Unit
    rounds: dict[str, list[float]]
    """By rival."""
    medians: dict[str, float]
    times_fastest_peer: float | None
    """How many times as fast as the fastest peer this package is."""
    verdicts: list[Verdict]


class Measured(msgspec.Struct):
    """One subject."""

    key: str
    name: str
    family: str
    what: str
    chart: list[str]
    """The metrics that the picture shows."""
    rivals: list[str]
    rows: list[Row]
    unavailable: dict[str, str]
    """Why it could not be measured, by rival."""
    failures: dict[str, str]
    """What went wrong, by rival."""


class Results(msgspec.Struct):
    """A whole run."""

    machine: Machine
    quick: bool
    rounds: int
    seconds: float
    """The time of one measurement in one round, about."""
    contestants: list[Contestant]
    subjects: list[Measured]
    format: int = _FORMAT

    @property
    def broken(self) -> bool:
        """Whether something went wrong."""
        return any(subject.failures for subject in self.subjects)


def to_json(results: Results) -> bytes:
    """The whole run, for people's programs and for ``load``."""
    return msgspec.json.format(msgspec.json.encode(results)) + b"\n"


def load(path: Path) -> Results:
    """An earlier run. Raises ValueError if the file is none, OSError if it cannot be read."""
    content = path.read_bytes()
    try:
        results = msgspec.json.decode(content, type=Results)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} does not hold the results of a run: {error}") from None
    if results.format != _FORMAT:
        raise ValueError(f"{path} has format {results.format}, and this version reads {_FORMAT}")
    return results
