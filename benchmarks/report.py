"""Results for people: a table in text, plots, and one page with all of it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from benchmarks.results import Results
from benchmarks.tools import Shape
from sentinel_wasm.bench import page, svg

_MODULES = {
    "trivial": "the smallest module: always the same result",
    "distinct": "a result of its own for each event: no cache helps",
    "real": "examples/rust/security.wasm",
}
_HEADS = ("events/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/event", "client busy")
_RATIO_HEADS = ("events/s", "p50", "p99", "CPU per event")
_FOOTPRINT_HEADS = ("first answer ms", "RSS MiB")

Table = tuple[str, list[str], list[list[str]]]
"""Its title, its heads, its lines; the words are the first two columns of each line."""


def tables(results: Results, module: str) -> list[Table]:
    """The figures, the ratios and the footprints on one module."""
    rows = [
        [
            str(row.shape),
            row.server,
            f"{row['events_s']:,.0f}",
            *(f"{row[name]:.1f}" for name in ("p50_us", "p99_us", "p999_us")),
            f"{row['cpu_us']:.2f}",
            f"{row['client_busy']:.2f}",
        ]
        for row in results.rows
        if row.module == module
    ]
    ratios = [
        [str(ratio.shape), f"ours / {ratio.other}", *map(_ratio, ratio.figures.values())]
        for ratio in results.ratios()
        if ratio.module == module
    ]
    footprints = [
        ["", one.server, f"{one.first_answer_s * 1000:.0f}", f"{one.rss_mib:.1f}"]
        for one in results.footprints
        if one.module == module
    ]
    return [
        ("medians of the rounds", ["load", "server", *_HEADS], rows),
        ("ratios, medians of the rounds' own", ["load", "", *_RATIO_HEADS], ratios),
        ("from start to first answer; memory after the load", ["", "server", *_FOOTPRINT_HEADS], footprints),
    ]


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def how(results: Results) -> str:
    return (
        f"{results.rounds} rounds of {results.seconds:g} s, in turn; events with {results.headers} headers;"
        " loads are connections over v1, connections × events in flight over v2"
    )


def text(results: Results) -> str:
    parts = [f"machine: {results.machine}", how(results)]
    for module in results.modules:
        parts.append(f"\nmodule {module}: {_MODULES[module]}")
        for title, heads, lines in tables(results, module):
            parts += ["", f"{title}:", *page.aligned([heads, *lines], words=2)]
    return "\n".join(parts)


def plots(results: Results) -> dict[str, str]:
    """SVG text by file name."""
    names = {kind.name: kind.title for kind in results.servers}
    found = {}
    for module in results.modules:
        throughput = _bar_panels(results, module, "events_s")
        found[f"{module}-throughput.svg"] = svg.bars(
            f"Throughput by connections, {module} module", "events/s", throughput, names
        )
        cpu = _bar_panels(results, module, "cpu_us")
        found[f"{module}-cpu.svg"] = svg.bars(
            f"The server's CPU time per event, {module} module", "µs", cpu, names
        )
        found[f"{module}-latency.svg"] = svg.curves(
            f"Latency, {module} module", _curve_panels(results, module), names
        )
    return found


def _bar_panels(results: Results, module: str, figure: str) -> Iterable[svg.BarPanel]:
    below = {1: "connections", 2: "connections × events in flight on each"}
    for protocol, label in below.items():
        groups = [
            svg.Group(
                shape.text,
                {
                    kind.name: row[figure]
                    for kind in results.servers
                    if (row := results.row(module, shape, kind.name)) is not None
                },
            )
            for shape in results.shapes
            if shape.protocol == protocol
        ]
        yield svg.BarPanel(f"v{protocol}", label, tuple(groups))


def _curve_panels(results: Results, module: str) -> Iterable[svg.CurvePanel]:
    for shape in results.shapes:
        rows = [results.row(module, shape, kind.name) for kind in results.servers]
        yield svg.CurvePanel(_sentence(shape), {row.server: row.histogram for row in rows if row is not None})


def _sentence(shape: Shape) -> str:
    connections = f"{shape.connections} connection{'s' if shape.connections > 1 else ''}"
    return f"v{shape.protocol}, {connections}" + (
        f", {shape.depth} in flight on each" if shape.protocol == 2 else ""
    )


def document(results: Results, drawn: dict[str, str]) -> str:
    """One HTML file that needs no other."""
    parts = [
        f"<p>Machine: {escape(str(results.machine))}.</p><p>{escape(how(results))}.</p><ul>",
    ]
    parts += [
        f"<li>{escape(kind.title)} (<b>{kind.name}</b>): <code>{escape(kind.command_line)}</code></li>"
        for kind in results.servers
    ]
    parts.append("</ul>")
    for module in results.modules:
        parts.append(f"<h2>Module {module}</h2><p>{escape(_MODULES[module])}</p>")
        parts += [drawn[f"{module}-{plot}.svg"] for plot in ("throughput", "cpu", "latency")]
        parts += [page.table(*table, words=2) for table in tables(results, module)]
    return page.document("sentinel-wasm side by side", parts)
