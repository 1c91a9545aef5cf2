"""HTML that is escaped by construction: text becomes markup only through ``element``."""

import html
from collections.abc import Iterable, Mapping, Sequence

_EMPTY = ("img", "input", "rect", "line", "br")  # elements without an end tag here


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str | float | bool | None) -> Html:
    """Return an element; children and attributes that are plain text are escaped.

    Args:
        name: of the element.
        children: text, or elements.
        attributes: by name, ``class_`` for ``class``, ``aria_label`` for ``aria-label``; True
            stands for one without a value, None and False for none.

    Example:
        >>> element("p", "a < b", element("b", "c"), class_="note")
        '<p class="note">a &lt; b<b>c</b></p>'
    """
    written = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _EMPTY:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Join elements and text, which is escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def table(
    caption: str,
    columns: Sequence[str],
    bodies: Mapping[str, Iterable[Sequence[str]]],
    mark: str | None = None,
) -> Html:
    """Return a table in a region that scrolls sideways.

    Args:
        caption: what it shows.
        columns: their headings.
        bodies: rows by a heading over them, which may be empty; the first cell of a row is its
            heading.
        mark: attribute of each row that holds its heading, by which a script finds it.
    """
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    parts = []
    for title, rows in bodies.items():
        over = element("th", title, scope="rowgroup", colspan=len(columns))
        lines = [element("tr", over, class_="over")] if title else []
        for first, *cells in rows:
            row = [element("th", first, scope="row"), *(element("td", cell) for cell in cells)]
            lines.append(element("tr", *row, **({} if mark is None else {mark: first})))
        parts.append(element("tbody", *lines))
    whole = element(
        "table", element("caption", element("span", caption)), element("thead", head), *parts
    )
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def section(name: str, title: str, *children: str) -> Html:
    """Return a section with its heading."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def details(summary: str, *children: str, **attributes: str | bool | None) -> Html:
    """Return what opens on demand."""
    return element("details", element("summary", summary), *children, **attributes)


def note(*words: str) -> Html:
    """Return a paragraph of explanation."""
    return element("p", *words, class_="note")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
