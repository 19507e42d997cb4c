"""What the site has besides docs/: README.md as its home, what pages link to elsewhere, a reference."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ci.site import reference

_ROOT = Path(__file__).parent.parent.parent
_README, _HOME = "README.md", "index.md"
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """As mkdocs wants it: all files of the site."""
    for name, text in reference.pages().items():
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, _HOME, abs_src_path=str(_ROOT / _README)))
    unread = list(files.documentation_pages())
    while unread:
        page = unread.pop()
        for link in _LINK.findall(page.content_string):
            target = _target(page.src_uri, link)
            if target is not None and files.get_file_from_path(target) is None:
                file = File.generated(config, target, abs_src_path=str(_ROOT / target))
                files.append(file)
                if file.is_documentation_page():
                    unread.append(file)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """As mkdocs wants it: links between files of the repository become links between those of the site."""
    here = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        target = _target(here, link[0])
        return link[0] if target is None else posixpath.relpath(target, posixpath.dirname(here) or ".")

    return _LINK.sub(moved, markdown)


def _target(page: str, link: str) -> str | None:
    """The file of the repository that a page links to, as the site names it; a folder is its README.md."""
    source = _README if page == _HOME else page if (_ROOT / page).is_file() else f"docs/{page}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if (_ROOT / path).is_dir():
        path += f"/{_README}"
    if not (_ROOT / path).is_file():
        return None
    return _HOME if path == _README else path.removeprefix("docs/")
