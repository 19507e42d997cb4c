"""The page of `/`: one document, put together at start, that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path

_PLACE = Path(__file__).parent
NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of what loads nothing at all."""


def make(token: str) -> tuple[bytes, str]:
    """The document, with this token for its POSTs in it, and its Content-Security-Policy."""
    style, script, document = (
        (_PLACE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "index.html")
    )
    for place, text in (("/*style*/", style), ("/*script*/", script), ("(token)", html.escape(token))):
        document = document.replace(place, text, 1)
    policy = (
        f"{NOTHING}; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return document.encode(), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
