"""Figures as SVG inside a page: they take the page's colours, so they are readable in light, in dark and printed."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from unlearun.report.figures import COLOURS, INK, OTHERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What matplotlib draws in these stands in the page's variables of the same purpose.
_VARIABLES = {
    INK: "currentColor",
    **{colour: f"var(--{name})" for name, colour in COLOURS.items()},
    **{colour: f"var(--other-{at})" for at, colour in enumerate(OTHERS, start=1)},
}
# What matplotlib writes at the ticks of a logarithmic scale.
_SCALE = re.compile(r"\\mathdefault")


def svg(figure: Figure, name: str, words: str) -> str:
    """Write a figure as an ``<svg>`` element.

    Args:
        figure: What is drawn.
        name: Its short name, unlike those of other figures of the page: ids begin with it.
        words: What it shows, for those who cannot see it.
    """
    import matplotlib as mpl
    from matplotlib.text import Text

    for axes in figure.axes:
        _in_ink(axes)
    for text in figure.findobj(Text):
        if not _SCALE.search(text.get_text()):
            text.set_parse_math(False)  # a name may hold dollars
    drawing = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "savefig.facecolor": "none"}):
        figure.savefig(
            drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None}
        )
    drawn = drawing.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    drawn = re.sub(r'\bid="', f'id="{name}-', drawn)
    drawn = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawn)
    drawn = re.sub(r"; font-family: [^;\"]*", "", drawn)  # the page's: matplotlib's own may not be there
    opening, _, rest = drawn.partition(">")
    width = re.search(r'width="([\d.]+)pt"', opening)
    opening = re.sub(r' (?:width|height)="[\d.]+pt"', "", opening)  # it is as wide as there is room
    most = f' style="max-width: {float(width[1]) * 4 / 3:.0f}px"' if width else ""
    opening = opening.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"{most}')
    return f"{opening}>{rest}"


def _in_ink(axes: Axes) -> None:
    axes.tick_params(colors=INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    for text in [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts, *ticks]:
        text.set_color(INK)
    legend = axes.get_legend()
    for text in legend.get_texts() if legend is not None else []:
        text.set_color(INK)
    for line in [*axes.get_xgridlines(), *axes.get_ygridlines()]:
        line.set_color(INK)
