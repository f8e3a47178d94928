"""Links, anchors, images and titles of a rendered site: what is ours must be there."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

PAGES = "https://hepinf.github.io/hepinf/"  # where the site is published
FILES = re.compile("https://github.com/hepinf/hepinf/(?:blob|tree)/main/")
NUMBER = re.compile(r"^\d+[a-z]?_")  # Quarto publishes 01_histogram.ipynb as histogram.html, smalldocs does not rename


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
    if not pages:
        return [f"{site}: no pages"]
    published = {_published(path.relative_to(site.resolve())): path for path in pages}
    found = [(path, what) for path in pages for what in _broken(path, pages, published, checkout)]
    return [f"{path.relative_to(site.resolve())}: {what}" for path, what in found]


def _published(page: Path) -> str:
    """Where Quarto publishes a page: the folder keeps its number, the page loses it."""
    return page.with_name(NUMBER.sub("", page.name)).as_posix()


def _broken(path: Path, pages: dict[Path, Page], published: dict[str, Path], checkout: Path) -> Iterator[str]:
    """What is wrong with one page."""
    page = pages[path]
    if not page.title.strip() or not page.heading.strip():
        yield "it has no title"
    for link in dict.fromkeys(page.images):
        if not urlsplit(link).scheme and not (path.parent / unquote(urlsplit(link).path)).is_file():
            yield f"the image or script '{link}' is not there"
    for link in dict.fromkeys(page.links):
        parts = urlsplit(link)
        if FILES.match(link):
            if not (checkout / unquote(urlsplit(FILES.sub("", link)).path)).exists():
                yield f"the link '{link}' leads to a file that the project does not have"
            continue
        if link.startswith(PAGES):
            name = unquote(parts.path).removeprefix(urlsplit(PAGES).path) or "index.html"
            there = published.get(name, Path(name))
        elif parts.scheme or parts.netloc:
            continue
        else:
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
        if not there.is_file():
            yield f"the link '{link}' leads nowhere"
        elif there.suffix == ".ipynb":
            yield f"the link '{link}' leads to a notebook, not to its page"
        elif there in pages and unquote(parts.fragment) not in pages[there].ids:
            yield f"the link '{link}' leads to a place that its page does not have"
