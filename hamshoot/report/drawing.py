"""Figures of matplotlib as SVG elements inside a page.

A page has one list of styles and one list of glyphs for all of its figures: equal declarations
become one class, and their colours variables of the stylesheet, so that a figure drawn once is
readable on a light and on a dark page, and a policy that forbids style attributes is kept.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from hamshoot.report.colours import dark
from hamshoot.support.html import Element, element

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
#: The class of figures that hold pictures, whose colours no stylesheet can turn: they keep the
#: light page.
RASTER = "raster"
#: What is drawn without a colour.
INK = "#000000"
#: Colours in declarations, coordinates in attributes, and references to ids.
COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
NUMBER = re.compile(r"-?\d+\.\d+")
REFERENCE = re.compile(r"url\(#([^)]*)\)")
#: Attributes whose numbers are coordinates, in points; two decimals are a hundredth of a pixel.
COORDINATES = ("d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "points")


class Drawings:
    """The figures of one page, and what they share.

    Attributes
    ----------
    glyphs : dict of str to (str, str)
        Outlines of characters by id, and the scale that they are drawn at.
    """

    def __init__(self) -> None:
        self.glyphs: dict[str, tuple[str, str]] = {}
        self._classes: dict[str, str] = {}
        self._colours: dict[str, str] = {}
        self._count = 0
        self.colour(INK)

    def svg(self, figure: Figure, title: str, description: str) -> Element:
        """A figure as an element with a text alternative.

        Parameters
        ----------
        figure : Figure
        title, description : str
            What it shows, and what is to be seen on it, for those who do not see it.
        """
        import matplotlib

        self._count += 1
        prefix = f"f{self._count}"
        file = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "hamshoot", "svg.fonttype": "path"}):
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        root = ET.fromstring(file.getvalue())
        for definition in root.iter(f"{SVG}defs"):
            self._collect_glyphs(definition)
        referred = self._references(root)
        for node in root.iter():
            self._adopt(node, prefix, referred)
        view = root.get("viewBox", "")
        drawn = [child for child in root if child.tag != "metadata"]
        kind = "figure" if root.find(".//image") is None else f"figure {RASTER}"
        return element(
            "svg", element("title", title, id=f"{prefix}-title"),
            element("desc", description, id=f"{prefix}-desc"), *drawn, class_=kind,
            viewBox=view, role="img", aria_labelledby=f"{prefix}-title",
            aria_describedby=f"{prefix}-desc")

    def glyph_sheet(self) -> Element:
        """The outlines that all figures refer to, out of sight."""
        outlines = [element("path", id=name, d=d, transform=scale)
                    for name, (d, scale) in sorted(self.glyphs.items())]
        return element("svg", element("defs", *outlines), class_="glyphs", aria_hidden="true",
                       focusable="false", width=0, height=0)

    def colour(self, value: str) -> str:
        """A colour of a light page as a variable of the stylesheet."""
        value = value.lower()
        self._colours.setdefault(value, dark(value))
        return f"var(--c{value[1:]})"

    def stylesheet(self) -> str:
        """Variables of both pages, and the classes."""
        light_page = "".join(f"--c{name[1:]}:{name};" for name in self._colours)
        dark_page = "".join(f"--c{name[1:]}:{other};" for name, other in self._colours.items())
        rules = "\n".join(f".{name}{{{style}}}" for style, name in self._classes.items())
        return (f":root{{{light_page}}}\n@media screen and (prefers-color-scheme:dark)"
                f"{{:root{{{dark_page}}}}}\nsvg.{RASTER}{{{light_page}}}\n{rules}\n")

    def style(self, declarations: str) -> str:
        """The class of some declarations."""
        declarations = COLOUR.sub(lambda found: self.colour(found[0]), declarations)
        declarations = declarations.replace(": ", ":").replace("; ", ";").strip(";")
        return self._classes.setdefault(declarations, f"m{len(self._classes)}")

    def _collect_glyphs(self, definition: Element) -> None:
        """Take characters out of a list of definitions; those of one font are the same everywhere.

        A sheet's global style, which sets how lines end, goes too: `style.css` has it.
        """
        for child in list(definition):
            name = child.get("id", "")
            drawn = " ".join(child.get("d", "").split()), child.get("transform", "")
            glyph = child.tag == f"{SVG}path" and "-" in name and not child.get("style")
            known = glyph and self.glyphs.setdefault(name, drawn) == drawn
            if known or child.tag == f"{SVG}style":
                definition.remove(child)

    def _references(self, root: Element) -> set[str]:
        """Ids that something of the figure refers to, glyphs of the page apart."""
        found = set()
        for node in root.iter():
            found.add(node.get(LINK, "").removeprefix("#"))
            for value in node.attrib.values():
                found.update(REFERENCE.findall(value))
        return found - self.glyphs.keys()

    def _adopt(self, node: Element, prefix: str, referred: set[str]) -> None:
        """Names without namespaces, ids of the page's own, styles as classes, fewer decimals."""
        node.tag = node.tag.removeprefix(SVG)
        node.text = node.tail = None
        name = node.attrib.pop("id", None)
        if name in referred:
            node.set("id", f"{prefix}-{name}")
        link = node.attrib.pop(LINK, None)
        if link is not None:
            own = link.removeprefix("#")
            inside = link.startswith("#") and own not in self.glyphs
            # A picture is in the link itself, with spaces that an address should not have.
            node.set("href", f"#{prefix}-{own}" if inside else link.replace(" ", ""))
        declarations = node.attrib.pop("style", None)
        if declarations:
            node.set("class", self.style(declarations))
        for key, value in node.attrib.items():
            if key in COORDINATES:
                value = NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."),
                                   " ".join(value.split()))
            node.set(key, REFERENCE.sub(rf"url(#{prefix}-\1)", value))
