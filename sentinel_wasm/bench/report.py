"""Results for people: text, and one page with plots."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from sentinel_wasm import logs
from sentinel_wasm.bench import page, svg
from sentinel_wasm.bench.results import COMPARED, FIGURES, LEVEL, Ratio, Results, Side

_BUSY = 0.9  # of a processor
_PLOTTED = {
    "events_s": ("throughput", "events/s"),
    "p50_us": ("median latency", "µs"),
    "cpu_us": ("CPU per event", "µs"),
}


def text(results: Results) -> str:
    heads, *lines = table(results)
    return "\n".join(
        [
            f"machine: {results.machine}",
            f"load: {results.shape}",
            "",
            *page.aligned([heads, *lines]),
            "",
            *remarks(results),
        ]
    )


def table(results: Results) -> list[list[str]]:
    """Heads, then a line for each figure."""
    sides = results.first, results.second
    lines = [
        ["median of rounds", *(logs.escaped(side.name) for side in sides), "ratio", f"{LEVEL:.0%} between"]
    ]
    for name, title in FIGURES.items():
        ratio = results.ratio(name) if name in COMPARED else None
        lines.append([title, *(_shown(name, side[name]) for side in sides), *_ratio(ratio)])
    return lines


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name in ("guest_share", "client_busy"):
        return f"{value:.0%}"
    return f"{value:,.0f}" if name == "events_s" else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _ratio(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return "", ""
    return f"{ratio.median:.3f}", "" if ratio.between is None else "{:.3f} and {:.3f}".format(*ratio.between)


def remarks(results: Results) -> Iterator[str]:
    """The verdict, and what should be known beside it."""
    yield _verdict(results)
    for side in (results.first, results.second):
        said = ", ".join(f"{name} {count:,}" for name, count in side.answers.most_common())
        yield f"answers of {logs.escaped(side.name)}: {said}"
    if max(side["client_busy"] or 0 for side in (results.first, results.second)) > _BUSY:
        yield (
            "the client was busy all the time: throughput and latency are as much its own as the agent's;"
            " go by the CPU per event"
        )


def _verdict(results: Results) -> str:
    first, second = (logs.escaped(side.name) for side in (results.first, results.second))
    figure, ratio = "CPU per event", results.ratio("cpu_us")
    if ratio is None:
        figure, ratio = "median latency", results.ratio("p50_us")
    if ratio is None or ratio.between is None:
        return "too few rounds to say whether they differ: it takes 6"
    found = (
        "no difference seen"
        if not ratio.differs
        else f"{second} is {'slower' if ratio.median > 1 else 'quicker'}"
    )
    return (
        f"{found}: {ratio.median:.3f} times the {figure} of {first}, with {LEVEL:.0%} certainty between"
        f" {ratio.between[0]:.3f} and {ratio.between[1]:.3f}"
    )


def document(results: Results) -> str:
    """One HTML file that needs no other."""
    heads, *lines = table(results)
    sides = {"first": results.first, "second": results.second}
    names = {key: logs.escaped(side.name) for key, side in sides.items()}
    curves = svg.CurvePanel("all rounds together", {key: side.histogram for key, side in sides.items()})
    return page.document(
        f"{names['second']} and {names['first']}",
        [f"<p>{escape(remark)}.</p>" for remark in remarks(results)]
        + [
            page.table("Figures", heads, lines),
            svg.curves("Latency", [curves], names),
            *(_plot(figure, sides, names) for figure in _PLOTTED if _is_known(figure, sides)),
            f"<p>Machine: {escape(str(results.machine))}.</p><p>Load: {escape(str(results.shape))}.</p>",
        ],
    )


def _is_known(figure: str, sides: dict[str, Side]) -> bool:
    return all(side[figure] is not None for side in sides.values())


def _plot(figure: str, sides: dict[str, Side], names: dict[str, str]) -> str:
    rounds = len(sides["first"].rounds)
    groups = tuple(
        svg.Group(str(number + 1), {key: side.rounds[number][figure] or 0 for key, side in sides.items()})
        for number in range(rounds)
    )
    title, unit = _PLOTTED[figure]
    return svg.bars("Round by round", unit, [svg.BarPanel(title, "rounds", groups)], names)
