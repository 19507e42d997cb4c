"""Plots as SVG text: bars in groups, and curves of quantiles. No scripts; colours for light and for dark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from sentinel_wasm.bench.histogram import Histogram

WIDTH = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 92, 52  # of a panel; above the first are title and legend
_PANEL_TITLE = 26
_PANELS_ACROSS = 3
_CHARACTER = 6  # how wide one is above a bar
_STEPS = 20  # of a curve, for each nine of a quantile

# Light, dark. Told apart by the colour-blind too (after Okabe and Ito).
_FIRST, _LAST = ("#8a8a8a", "#9a9a9a"), ("#0072b2", "#56b4e9")
_BETWEEN = (("#d55e00", "#f28c3a"), ("#b0578d", "#df8fc0"))


def _style(count: int) -> str:
    """For so many series, of which the first is what the others are compared with."""
    pairs = [_FIRST, *_BETWEEN[: count - 2], _LAST]

    def rules(background: str, text: str, faint: str, which: int) -> str:
        colours = "".join(
            f".bar.s{number}{{fill:{pair[which]}}}.line.s{number}{{stroke:{pair[which]}}}"
            for number, pair in enumerate(pairs)
        )
        return (
            f".back{{fill:{background}}}.plot text{{fill:{text}}}.grid{{stroke:{faint}}}"
            f".axis{{stroke:{text}}}{colours}"
        )

    return (
        "<style>.plot text{font:12px system-ui,'DejaVu Sans',sans-serif}"
        ".plot .title{font-size:16px;font-weight:600}.plot .panel{font-weight:600}"
        ".plot .value{font-size:11px}.line{fill:none;stroke-width:2}"
        ".line.s0{stroke-dasharray:5 3}.grid,.axis{stroke-width:1}"
        + rules("#ffffff", "#1f2328", "#d8dee4", 0)
        + "@media (prefers-color-scheme:dark){"
        + rules("#0d1117", "#e6edf3", "#30363d", 1)
        + "}</style>"
    )


@dataclass(frozen=True)
class Group:
    """Bars that stand together: a value for each series' name."""

    label: str
    values: dict[str, float]


@dataclass(frozen=True)
class BarPanel:
    """Groups over one axis, which begins at 0."""

    title: str
    label: str  # below the groups
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class CurvePanel:
    """One histogram for each series' name."""

    title: str
    histograms: dict[str, Histogram]


def short(value: float) -> str:
    """A number in few characters: 324k, 1.15M, 17.4."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.{2 if value < 10 * size else 1 if value < 100 * size else 0}f}{letter}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def even_steps(most: float) -> list[float]:
    """Ticks from 0 that reach `most`: about five, of a round step."""
    if most <= 0:
        return [0, 1]
    least = most / 5
    size = 10.0 ** math.floor(math.log10(least))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= least * 0.999999)
    return [step * n for n in range(math.ceil(most / step - 1e-9) + 1)]


def bars(title: str, unit: str, panels: Iterable[BarPanel], names: dict[str, str]) -> str:
    """Panels side by side, each with its own axis. `names` are the series' titles, in their order."""
    panels = [panel for panel in panels if panel.groups]
    height, gap = 380, 22
    # Between bars and groups, every panel has the same measures.
    slots = [sum(len(group.values) + 1 for group in panel.groups) for panel in panels]
    slot = (WIDTH - len(panels) * (_LEFT + _RIGHT) - gap * (len(panels) - 1)) / sum(slots)
    parts, x = [], 0.0
    for panel, count in zip(panels, slots, strict=True):
        parts.append(_bar_panel(panel, unit, list(names), x, slot, count, height))
        x += _LEFT + count * slot + _RIGHT + gap
    return _document(title, height, names, parts)


def _bar_panel(
    panel: BarPanel, unit: str, order: list[str], x: float, slot: float, count: int, height: int
) -> str:
    top, bottom = _TOP + _PANEL_TITLE, height - _BOTTOM
    ticks = even_steps(max(value for group in panel.groups for value in group.values.values()))
    left, right = x + _LEFT, x + _LEFT + slot * count

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * value / ticks[-1]

    parts = [_text(left, _TOP + 4, f"{panel.title}, {unit}", "start", "panel")]
    for tick in ticks:
        parts.append(_line("grid", left, y_of(tick), right, y_of(tick)))
        parts.append(_text(left - 6, y_of(tick) + 4, _tick(tick), "end"))
    at = left
    gap = min(1, slot / 8)
    longest = max(len(short(value)) for group in panel.groups for value in group.values.values())
    has_room = longest * _CHARACTER <= slot
    for group in panel.groups:
        width = len(group.values) * slot
        at += slot / 2
        parts.append(_text(at + width / 2, bottom + 18, group.label, "middle"))
        for number, name in enumerate(order):
            if name not in group.values:
                continue
            y = y_of(group.values[name])
            parts.append(
                f'<rect class="bar s{number}" x="{at + gap:.1f}" y="{y:.1f}" width="{slot - 2 * gap:.1f}"'
                f' height="{bottom - y:.1f}"/>'
            )
            if has_room:
                parts.append(_text(at + slot / 2, y - 4, short(group.values[name]), "middle", "value"))
            at += slot
        at += slot / 2
    parts.append(_line("axis", left, bottom, right, bottom))
    parts.append(_text((left + right) / 2, bottom + 38, panel.label, "middle"))
    return "".join(parts)


def tail(share: float) -> float:
    """Where a quantile stands on an axis on which 90 %, 99 %, 99.9 % are equally far apart."""
    return -math.log10(1 - share)


def curve(histogram: Histogram) -> list[tuple[float, float]]:
    """(tail, µs) of a histogram's quantiles, as far out as ten of its times lie beyond."""
    end = math.log10(max(histogram.total / 10, 2))
    count = math.ceil(end * _STEPS)
    tails = [end * n / count for n in range(count + 1)]
    return [(at, histogram.quantile_ns(1 - 10**-at) / 1000) for at in tails]


_SHARES = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"))


def curves(title: str, panels: Iterable[CurvePanel], names: dict[str, str]) -> str:
    """How many percent of the answers (across) took no longer than so many µs (up, logarithmic).

    All panels, up to three in a row, have the same axes.
    """
    panels = list(panels)
    drawn = [{name: curve(one) for name, one in panel.histograms.items()} for panel in panels]
    points = [point for panel in drawn for line in panel.values() for point in line]
    furthest = min(max(x for x, _ in points), tail(0.99995))
    shown = [us for x, us in points if x <= furthest]
    decades = math.floor(math.log10(max(min(shown), 0.1))), math.ceil(math.log10(max(shown)))
    across, panel_height = min(len(panels), _PANELS_ACROSS), 270
    width = WIDTH / across
    parts = []
    for number, (panel, lines) in enumerate(zip(panels, drawn, strict=True)):
        x, y = width * (number % across), _TOP + panel_height * (number // across)
        parts.append(_curve_panel(panel.title, lines, list(names), (x, y), width, furthest, decades))
    rows = math.ceil(len(panels) / across)
    return _document(title, _TOP + rows * panel_height + 6, names, parts)


def _curve_panel(
    title: str,
    lines: dict[str, list[tuple[float, float]]],
    order: list[str],
    corner: tuple[float, float],
    width: float,
    furthest: float,
    decades: tuple[int, int],
) -> str:
    left, right = corner[0] + _LEFT, corner[0] + width - _RIGHT
    top, bottom = corner[1] + 18, corner[1] + 270 - _BOTTOM
    low, high = decades[0], max(decades[1], decades[0] + 1)

    def x_of(at: float) -> float:
        return left + (right - left) * at / furthest

    def y_of(us: float) -> float:
        return bottom - (bottom - top) * (math.log10(us) - low) / (high - low)

    parts = [_text(left, corner[1] + 4, title, "start", "panel")]
    for decade in range(low, high + 1):
        us = 10.0**decade
        parts.append(_line("grid", left, y_of(us), right, y_of(us)))
        parts.append(_text(left - 6, y_of(us) + 4, _time(us), "end"))
    for share, label in _SHARES:
        if tail(share) <= furthest:
            x = x_of(tail(share))
            parts.append(_line("grid", x, top, x, bottom))
            parts.append(_text(x, bottom + 16, label, "middle"))
    for number, name in enumerate(order):
        if name in lines:
            inside = [(x, us) for x, us in lines[name] if x <= furthest]
            path = " ".join(f"{x_of(x):.1f},{y_of(max(us, 10.0**low)):.1f}" for x, us in inside)
            parts.append(f'<polyline class="line s{number}" points="{path}"/>')
    parts.append(_line("axis", left, bottom, right, bottom))
    parts.append(_text((left + right) / 2, bottom + 34, "% of answers within", "middle"))
    return "".join(parts)


def _tick(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _time(us: float) -> str:
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if us >= size:
            return f"{us / size:g} {unit}"
    return f"{us:g} µs"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    word = f' class="{kind}"' if kind else ""
    return f'<text{word} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _document(title: str, height: float, names: dict[str, str], parts: list[str]) -> str:
    legend, x = [], 20.0
    for number, text in enumerate(names.values()):
        legend.append(f'<rect class="bar s{number}" x="{x:.1f}" y="48" width="14" height="14"/>')
        legend.append(_text(x + 20, 60, text, "start"))
        x += 50 + 7.2 * len(text)
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
        f' width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(title)}">'
        f'{_style(len(names))}<rect class="back" width="100%" height="100%"/>'
        f"{_text(20, 30, title, 'start', 'title')}{''.join(legend)}{''.join(parts)}</svg>\n"
    )
