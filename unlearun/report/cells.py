"""Texts of rows and models in Markdown, shown as they are."""

from __future__ import annotations

import html
import re


def plain_cell(text: str) -> str:
    r"""Write a text so that Markdown, and the HTML that is made of it, show it as it is: no tags, links or images.

    Args:
        text: Of a row, or of a model.

    >>> print(plain_cell("a <b> [c](d) | *e* ~~f~~ $5"))
    a &lt;b&gt; \[c\](d) \| \*e\* \~\~f\~\~ \$5
    """
    words = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", " ".join(text.split()))
    return html.escape(words, quote=False)
