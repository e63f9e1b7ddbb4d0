"""What notebooks show of a result: a heading, sentences and a plain table, in HTML."""

from __future__ import annotations

from collections.abc import Sequence

from hamshoot.support.html import element, table, written


def shown(title: str, good: bool, rows: Sequence[Sequence[str]], sentences: Sequence[str] = (),
          head: Sequence[str] = ()) -> str:
    """HTML of a result, without scripts and styles, which some viewers of notebooks leave out.

    Parameters
    ----------
    title : str
    good : bool
        Whether the result claims what it was asked for.
    rows : sequence of sequence of str
        Of the table; the first entry names a row.
    sentences : sequence of str
        Paragraphs under the table.
    head : sequence of str
        Of the columns.
    """
    mark = "✓" if good else "✗"
    parts = [element("p", element("strong", f"{mark} {title}"))]
    if rows:
        parts.append(table(list(head), [list(row) for row in rows]))
    parts += [element("p", sentence) for sentence in sentences]
    return written(element("div", *parts, class_="hamshoot"))
