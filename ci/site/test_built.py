"""The built documentation loads nothing from elsewhere (make docs)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

SITE = Path(__file__).parent.parent.parent / "build" / "site"
PAGES = sorted(SITE.rglob("*.html"))
# Where an address may stand that a browser loads by itself; it does not follow these links.
LOADED = {"src", "srcset", "href", "action", "data", "poster"}
LINKS = {"a", "canonical", "prev", "next"}


class Loaded(HTMLParser):
    """Addresses that a browser loads by itself when it shows the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """As html.parser wants it."""
        if tag not in LINKS and dict(attributes).get("rel") not in LINKS:
            self.found += [value for name, value in attributes if value and name in LOADED]


def sources() -> Iterator[tuple[Path, str]]:
    """What pages and style sheets load."""
    for page in PAGES:
        for address in Loaded(page.read_text()).found:
            yield page, address
    for sheet in SITE.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", sheet.read_text()):
            yield sheet, address


def test_nothing_is_loaded_from_another_host() -> None:
    assert PAGES
    loaded = list(sources())
    assert len(loaded) > len(PAGES)
    elsewhere = {(page.name, address) for page, address in loaded if urlsplit(address).netloc}
    assert elsewhere == set()
