"""HTML as a tree of elements, so that whatever a user called a column is escaped by construction.

The standard library's element trees hold the page and write it; nothing is pasted into text.
"""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

Element = ET.Element

#: Their content is written as it is: what is put there has to be the package's own, or JSON.
RAW = ("script", "style")


def element(tag: str, *children: Element | str | None, **attributes: Any) -> Element:
    """One element with children in order, texts among them; None is left out.

    Parameters
    ----------
    tag : str
    *children : Element or str or None
    **attributes
        A trailing underscore is dropped (`class_`), others are dashes (`aria_label`); True stands
        for an attribute without a value, None and False for none.

    Raises
    ------
    ValueError
        For a text that would end a script or a style.
    """
    named = {name.rstrip("_").replace("_", "-"): "" if value is True else str(value)
             for name, value in attributes.items() if value is not None and value is not False}
    made = ET.Element(tag, named)
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            if tag in RAW and "</" in child:
                raise ValueError(f"{tag}: expected a text without '</'")
            add_text(made, child)
        else:
            made.append(child)
    return made


def add_text(parent: Element, text: str) -> None:
    """Append a text behind the last child."""
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def table(head: list[str], rows: list[list[str | Element]], caption: str | None = None,
          **attributes: Any) -> Element:
    """A table whose first column names its rows; without `head` it has no header row."""
    body = element("tbody")
    for first, *rest in rows:
        body.append(element("tr", element("th", first, scope="row"),
                            *(element("td", cell) for cell in rest)))
    top = element("thead", element("tr", *(element("th", name, scope="col") for name in head)))
    return element("table", None if caption is None else element("caption", caption),
                   top if head else None, body, **attributes)


def written(root: Element) -> str:
    """The text of an element, void elements and scripts as HTML has them."""
    return ET.tostring(root, encoding="unicode", method="html")


def script_json(value: Any) -> str:
    """JSON that neither ends nor begins anything inside a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
