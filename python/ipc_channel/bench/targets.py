"""The kinds of targets: a fixed figure, a ratio to a rival, a ratio among our own figures."""

from collections.abc import Sequence

from ipc_channel.bench.subject import OURS, REFERENCES, Medians, Target
from ipc_channel.bench.units import Unit, shown

__all__ = ["at_most_times", "beside", "fastest_peer", "fixed", "of_another", "spread", "times_fastest_peer"]


def fixed(metric: str, bound: float, unit: Unit) -> Target:
    """Our figure reaches ``bound``."""
    sign = "≥" if unit.more_is_better else "≤"

    def reached(medians: Medians) -> float | None:
        return medians.get(OURS, {}).get(metric)

    return Target(metric, f"{sign} {shown(bound, unit)}", reached, bound, unit, unit.more_is_better)


def beside(metric: str, unit: Unit, rival: str, title: str, factor: float) -> Target:
    """We are at least ``factor`` times as fast as ``rival``; both directions of figures are brought to "faster"."""

    def reached(medians: Medians) -> float | None:
        ours, theirs = medians.get(OURS, {}).get(metric), medians.get(rival, {}).get(metric)
        return None if ours is None or theirs is None else _speed(ours, theirs, unit)

    return Target(metric, f"≥ {factor:g} × {title}", reached, factor, Unit.TIMES, True)


def at_most_times(metric: str, rival: str, title: str, factor: float) -> Target:
    """Our time is at most ``factor`` times that of ``rival``."""

    def reached(medians: Medians) -> float | None:
        ours, theirs = medians.get(OURS, {}).get(metric), medians.get(rival, {}).get(metric)
        return None if ours is None or theirs is None else ours / theirs

    return Target(metric, f"≤ {factor:g} × {title}", reached, factor, Unit.TIMES, False)


def fastest_peer(metric: str, unit: Unit, factor: float) -> Target:
    """We are at least ``factor`` times as fast as the fastest peer that was measured."""

    def reached(medians: Medians) -> float | None:
        return times_fastest_peer(medians, metric, unit)

    return Target(metric, f"≥ {factor:g} × the fastest peer", reached, factor, Unit.TIMES, True)


def times_fastest_peer(medians: Medians, metric: str, unit: Unit) -> float | None:
    """How many times as fast as the fastest peer we are. None without a figure of ours or a peer."""
    ours = medians.get(OURS, {}).get(metric)
    peers = [
        figures[metric]
        for rival, figures in medians.items()
        if rival != OURS and rival not in REFERENCES and metric in figures
    ]
    if ours is None or not peers:
        return None
    return _speed(ours, max(peers) if unit.more_is_better else min(peers), unit)


def spread(metric: str, metrics: Sequence[str], factor: float, text: str) -> Target:
    """The largest of our figures is at most ``factor`` times the smallest."""

    def reached(medians: Medians) -> float | None:
        figures = [medians[OURS][name] for name in metrics if name in medians.get(OURS, {})]
        return max(figures) / min(figures) if len(figures) > 1 else None

    return Target(metric, text, reached, factor, Unit.TIMES, False)


def of_another(metric: str, other: str, factor: float, text: str, *, at_least: bool) -> Target:
    """Our figure is at least, or at most, ``factor`` times another one of ours."""

    def reached(medians: Medians) -> float | None:
        ours = medians.get(OURS, {})
        return ours[metric] / ours[other] if metric in ours and other in ours else None

    return Target(metric, text, reached, factor, Unit.TIMES, at_least)


def _speed(ours: float, theirs: float, unit: Unit) -> float:
    return ours / theirs if unit.more_is_better else theirs / ours
