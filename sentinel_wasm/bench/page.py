"""Tables for people, in text and in HTML, and the HTML around them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;margin:.5em 0 1.5em}
caption{text-align:left;font-weight:600;padding:.3em 0}
th,td{padding:.15em .9em .15em 0;text-align:right;border-bottom:1px solid #8884}
.word{text-align:left}
svg{max-width:100%;height:auto;display:block;margin:1em 0}
code{font-size:13px}
.wide{overflow-x:auto}
"""


_WORD = ' class="word"'


def document(title: str, parts: Iterable[str]) -> str:
    """One HTML file that needs no other; `parts` are HTML."""
    start = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
    ]
    return "\n".join([*start, *parts]) + "</html>\n"


def table(title: str, heads: list[str], lines: list[list[str]], words: int = 1) -> str:
    """As HTML. The first so many columns are words, the others figures."""

    def cells(line: list[str], tag: str) -> str:
        inner = (
            f"<{tag}{_WORD if number < words else ''}>{escape(cell)}</{tag}>"
            for number, cell in enumerate(line)
        )
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(cells(line, "td") for line in lines)
    return (
        f'<div class="wide"><table><caption>{escape(title)}</caption><thead>{cells(heads, "th")}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def aligned(lines: list[list[str]], words: int = 1) -> Iterable[str]:
    """The same as text; the heads are the first of the lines."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
