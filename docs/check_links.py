"""Links of the built pages: every one inside leads to a page and a place that are there.

Run ``python docs/check_links.py docs/_build/html`` after a build. Links to other sites are counted,
not followed.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class Page(HTMLParser):
    """Links and places of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect href, src, id and name."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.places.add(value)


def broken(site: Path) -> tuple[list[str], int]:
    """Sentences on broken links, and how many lead elsewhere."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8"))
             for path in site.rglob("*.html")}
    wrong, elsewhere = [], 0
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme or link.startswith("//"):
                elsewhere += 1
                continue
            name, place = urldefrag(link)
            target = (path.parent / unquote(urlsplit(name).path)).resolve() if name else path
            if not target.exists():
                wrong.append(f"{path.relative_to(site.resolve())}: {link} leads nowhere")
            elif place and target in pages and unquote(place) not in pages[target].places:
                wrong.append(f"{path.relative_to(site.resolve())}: {link} names no place there")
    return wrong, elsewhere


def main() -> int:
    """Print what is broken; 1 if anything is."""
    site = Path(sys.argv[1])
    wrong, elsewhere = broken(site)
    print("\n".join(wrong) or f"{site}: every link inside holds; {elsewhere} lead to other sites")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
