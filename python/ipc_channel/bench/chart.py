"""Results as a picture: horizontal bars, a panel for each figure, readable on light and on dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from ipc_channel.bench.results import Contestant, Measured, Results, Row
from ipc_channel.bench.subject import OURS
from ipc_channel.bench.units import shown

__all__ = ["draw"]

_WIDTH: Final = 960
_MARGIN: Final = 24
_GAP: Final = 32
_COLUMNS: Final = 2
_PANEL: Final = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GAP) / _COLUMNS
_NAMES: Final = 104
"""Width of the names of the bars."""
_VALUES: Final = 72
"""Room for a figure at the end of the longest bar."""
_BAR: Final = 14
_STEP: Final = 20
_HEAD: Final = 42
"""Height of a panel's title and subtitle."""
_TOP: Final = 74
_BOTTOM: Final = 44
_SHORTEST: Final = 3.0
"""A bar must be seen."""
_LINEAR: Final = 25.0
"""Largest ratio of two bars that a linear scale can show."""

# A background of its own makes the picture readable wherever it is put; a viewer that asks for dark gets dark.
_STYLE: Final = """
  .page { fill: #ffffff; stroke: #d0d7de }
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328 }
  .title { font-size: 20px; font-weight: 600 }
  .head { font-size: 14px; font-weight: 600 }
  .note { font-size: 11.5px; fill: #59636e }
  .name { font-size: 12px; text-anchor: end }
  .value { font-size: 12px; fill: #59636e }
  .name.ours, .value.ours { font-weight: 600; fill: #1f2328 }
  .bar { fill: #b6c0cc }
  .bar.ours { fill: #0969da }
  .bar.yardstick { fill: none; stroke: #8c959f; stroke-dasharray: 3 2 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d }
    text, .name.ours, .value.ours { fill: #f0f6fc }
    .note, .value { fill: #9198a1 }
    .bar { fill: #515c69 }
    .bar.ours { fill: #4493f8 }
    .bar.yardstick { stroke: #9198a1 }
  }
"""


@dataclass(frozen=True, slots=True)
class _Panel:
    """One figure of everybody."""

    title: str
    more_is_better: bool
    row: Row
    contestants: Sequence[Contestant]

    @property
    def height(self) -> int:
        """In the picture's units."""
        return _HEAD + _STEP * len(self.contestants)


def draw(results: Results) -> str | None:
    """The picture as SVG; None if nothing was measured that it shows."""
    panels = [panel for subject in results.subjects for panel in _panels(subject, results)]
    if not panels:
        return None
    parts: list[str] = []
    bottoms = [float(_TOP)] * _COLUMNS
    for panel in panels:
        column = bottoms.index(min(bottoms))
        parts += _draw_panel(panel, _MARGIN + column * (_PANEL + _GAP), bottoms[column])
        bottoms[column] += panel.height + _GAP / 2
    height = math.ceil(max(bottoms) + _BOTTOM)
    machine = results.machine
    rounds = "one round" if results.rounds == 1 else f"medians of {results.rounds} rounds"
    where = f"{machine.processor}, {machine.cores} cores, {machine.kernel}, {machine.python}; {rounds}"
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        '<title id="title">ipc-channel beside other ways of sending messages between processes</title>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(_MARGIN, 36, "title", "Messages between two Python processes"),
        _text(
            _MARGIN,
            56,
            "note",
            "Rust crate: the same between two Rust processes. Dashed: a yardstick that is no library.",
        ),
    ]
    return "\n".join([*head, *parts, _text(_MARGIN, height - 18, "note", where), "</svg>", ""])


def _panels(subject: Measured, results: Results) -> list[_Panel]:
    found: list[_Panel] = []
    for row in subject.rows:
        if row.name not in subject.chart:
            continue
        measured = [each for each in results.contestants if each.key in row.medians]
        if OURS not in row.medians or len(measured) < 2:
            continue
        better = row.unit.more_is_better
        measured.sort(key=lambda each: row.medians[each.key], reverse=better)
        title = subject.name + (f": {row.name}" if row.name else "")
        found.append(_Panel(title, better, row, measured))
    return found


def _draw_panel(panel: _Panel, x: float, y: float) -> list[str]:
    medians = panel.row.medians
    values = [medians[each.key] for each in panel.contestants]
    logarithmic = max(values) / min(values) > _LINEAR
    better = "more is better" if panel.more_is_better else "less is better"
    parts = [
        _text(x, y + 14, "head", panel.title),
        _text(x, y + 30, "note", better + (", logarithmic scale" if logarithmic else "")),
    ]
    room = _PANEL - _NAMES - _VALUES
    for number, each in enumerate(panel.contestants):
        value = medians[each.key]
        length = max(_SHORTEST, room * _share(value, values, logarithmic=logarithmic))
        top = y + _HEAD + number * _STEP
        place = f'x="{x + _NAMES:.1f}" y="{top:.1f}" width="{length:.1f}" height="{_BAR}"'
        role = "ours" if each.key == OURS else "" if each.peer else "yardstick"
        parts += [
            _text(x + _NAMES - 8, top + 11, f"name {role}".strip(), each.column),
            f'<rect class="{f"bar {role}".strip()}" {place} rx="2"/>',
            _text(x + _NAMES + length + 6, top + 11, f"value {role}".strip(), shown(value, panel.row.unit)),
        ]
    return parts


def _share(value: float, values: Sequence[float], *, logarithmic: bool) -> float:
    """How much of the room a bar takes."""
    if not logarithmic:
        return value / max(values)
    # From the power of ten below the smallest value, so that this one has a bar too.
    lowest = 10 ** math.floor(math.log10(min(values)) - 0.2)
    return math.log10(value / lowest) / math.log10(max(values) / lowest)


def _text(x: float, y: float, style: str, content: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(content)}</text>'
