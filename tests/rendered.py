"""Links, anchors, images and titles of a rendered site: what is ours must be there."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

PAGES = "https://hepinf.github.io/hepinf/"  # where the site is published
FILES = ("https://github.com/hepinf/hepinf/blob/main/", "https://github.com/hepinf/hepinf/tree/main/")


class Page(HTMLParser):
    """Title, ids, links and images of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.title, self.heading, self.inside = "", "", ""
        self.ids, self.links, self.images = {"", "top"}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag in ("a", "link") and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script") and "src" in found:
            self.images.append(found["src"])
        if tag in ("title", "h1"):
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "title":
            self.title += data
        elif self.inside:
            self.heading += data


def broken(site: Path, checkout: Path) -> list[str]:
    """One line for each thing of ours that a page of the site points to and that is not there."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    return [f"{path.relative_to(site)}: {what}" for path, page in pages.items() for what in _broken(path, page, pages, site, checkout)]


def _broken(path: Path, page: Page, pages: dict[Path, Page], site: Path, checkout: Path) -> Iterator[str]:
    if not page.title.strip() or not page.heading.strip():
        yield "it has no title"
    for link in dict.fromkeys(page.images):
        if not urlsplit(link).scheme and not (path.parent / unquote(urlsplit(link).path)).is_file():
            yield f"the image or script '{link}' is not there"
    for link in dict.fromkeys(page.links):
        for base in FILES:
            there = checkout / unquote(urlsplit(link.removeprefix(base)).path)
            if link.startswith(base) and not there.exists():
                yield f"the link '{link}' leads to a file that the project does not have"
        target = link.removeprefix(PAGES) if link.startswith(PAGES) else link
        if urlsplit(target).scheme or target.startswith("//"):
            continue
        base, parts = site if target != link else path.parent, urlsplit(target)
        there = (base / unquote(parts.path)).resolve() if parts.path else site if target != link else path.resolve()
        there = there / "index.html" if there.is_dir() else there
        if not there.is_file():
            yield f"the link '{link}' leads nowhere"
        elif there in pages and unquote(parts.fragment) not in pages[there].ids:
            yield f"the link '{link}' leads to a place that its page does not have"
        elif there.suffix == ".ipynb":
            yield f"the link '{link}' leads to a notebook, not to its page"
