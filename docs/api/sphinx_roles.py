"""Griffe extension: Sphinx roles of docstrings become links of this site."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([\w.]+)`")


class SphinxRoles(griffe.Extension):
    """Replaces ``:func:`name``` in every docstring of the package; names the site lacks stay text."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Walk the package once it is loaded."""
        self._replace(pkg)

    def _replace(self, found: griffe.Object) -> None:
        if found.docstring:
            found.docstring.value = _ROLE.sub(
                lambda role: _link(found, role[1]), found.docstring.value
            )
        for member in found.members.values():
            if not member.is_alias:
                self._replace(member)


def _link(found: griffe.Object, name: str) -> str:
    """A link to what a docstring of ``found`` calls ``name``."""
    try:
        target = name if name.startswith("multiad_med.") else found.resolve(name)
    except griffe.NameResolutionError:
        return f"`{name}`"
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'
