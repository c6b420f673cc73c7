"""HTML pages from the package's Jinja templates, with all text escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("multiad_med", "")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Style sheets and scripts go in as they are: their braces are no templates.
    environment.globals["file"] = lambda name: loader.get_source(environment, name)[0]
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment


def render(template: str, **content: Any) -> str:
    """Render a template.

    Args:
        template: its path below ``multiad_med``. In it, ``file(path)`` is the text of another file of
            the package.
        content: what the template shows.

    Raises:
        jinja2.UndefinedError: when the template asks for something that is not in ``content``.
    """
    return _environment().get_template(template).render(content)
