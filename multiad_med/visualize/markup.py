"""HTML whose text is escaped and whose tags are closed by construction."""

from __future__ import annotations

from html import escape

__all__ = ["Html", "element", "fragment"]

_VOID = {"circle", "img", "line", "meta", "rect"}
_OWN_LINE = {"figure", "h1", "h2", "h3", "li", "p", "split", "style", "table", "tr"}


class Html(str):
    """Markup; any other string is text, which :func:`element` escapes."""

    __slots__ = ()


def fragment(*children: str) -> Html:
    """Children one after the other, text escaped."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children))


def element(name: str, /, *children: str, **attributes: str) -> Html:
    """An element with its children, text and attributes escaped.

    Args:
        name: of the tag.
        children: markup or text; void elements have none.
        attributes: ``class_`` stands for ``class``, ``aria_label`` for ``aria-label``.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{written}/>")
    end = "\n" if name in _OWN_LINE else ""
    return Html(f"<{name}{written}>{fragment(*children)}</{name}>{end}")
