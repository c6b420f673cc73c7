"""Pages from templates: what a template is not given is no silent blank."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from multiad_med.utils.templates import render


def test_a_name_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="scale"):
        render("visualize/assets/scale_bar.html.jinja")


def test_text_is_escaped() -> None:
    page = render("visualize/assets/scale_bar.html.jinja", scale=['"/><script>'])
    assert "<script>" not in page
    assert "&#34;/&gt;&lt;script&gt;" in page
