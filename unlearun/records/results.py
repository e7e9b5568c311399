"""Values of an evaluation, and plain text tables of them for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from unlearun.records.evaluation import Evaluation
from unlearun.records.meanings import Interval, better, meaning
from unlearun.records.scores import ROUGE_COLUMNS, set_scores
from unlearun.records.summary import AGGREGATES

WIDTH = 120
LEAST_TEXT = 30


class Results(dict[str, float]):
    """Values of an evaluation by name; printing it gives a table.

    A metric of the forget set stands under its bare name, those of other sets under ``set/metric``.

    Args:
        values: The values.
        intervals: The 95% confidence intervals of some of them.
        parts: What the aggregates among them are made of.

    >>> print(Results({"mia": 0.31}))
         value  better  meaning
    ---  -----  ------  -------------------------------------------------------------
    mia  0.310     0.5  over-unlearned, the members look less familiar than strangers
    """

    def __init__(
        self,
        values: Mapping[str, float],
        intervals: Mapping[str, Interval] | None = None,
        parts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(values)
        self.intervals = {name: ends for name, ends in (intervals or {}).items() if name in values}
        self.parts = {name: list(made_of) for name, made_of in (parts or {}).items() if name in values}

    @classmethod
    def of(cls, evaluation: Evaluation, metrics: Sequence[str] | None = None) -> Results:
        """Take the values of an evaluation.

        Args:
            evaluation: What was found.
            metrics: The metrics to show; None, or "all" among them, for all that were measured on the way.
        """
        metrics = None if metrics is None or "all" in metrics else metrics
        summary = {
            name: value for name, value in evaluation.summary.items() if metrics is None or _asked(name, metrics)
        }
        values = {name.removeprefix("forget/"): value for name, value in summary.items()}
        intervals = {name.removeprefix("forget/"): ends for name, ends in evaluation.intervals.items()}
        return cls(values, intervals, evaluation.parts)

    def __missing__(self, name: str) -> float:
        """Take ``forget/probability`` for ``probability``, as records call it."""
        bare = name.removeprefix("forget/")
        if bare == name or bare not in self:
            raise KeyError(name)
        return self[bare]

    def __str__(self) -> str:
        """Return a table with intervals, the direction that is better, what a value means, and parts below it."""
        header = ["", "value", "95% interval", "better", "meaning"]
        rows = []
        for name in _shown(self):
            known = self.intervals.get(name)
            ends = "" if known is None or math.isnan(known[0]) else f"{number(known[0])} to {number(known[1])}"
            said = meaning(name, self[name], known if ends else None)
            rows.append([name, number(self[name]), ends, better(name), said])
        if not any(row[2] for row in rows):
            header, rows = [*header[:2], *header[3:]], [[*row[:2], *row[3:]] for row in rows]
        made_of = [
            textwrap.fill(f"{name}: harmonic mean of {', '.join(parts)}", WIDTH, subsequent_indent="  ")
            for name, parts in self.parts.items()
        ]
        return "\n".join([text_table(header, rows, texts=1), *([""] if made_of else []), *made_of])


def before_after(
    before: Mapping[str, float],
    after: Mapping[str, float],
    before_parts: Mapping[str, Sequence[str]] | None = None,
    after_parts: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Lay out two evaluations side by side.

    Args:
        before: Values at step 0.
        after: Values at the end.
        before_parts: What the aggregates at step 0 are made of.
        after_parts: What those at the end are made of.

    Returns:
        A table with the direction that is better. Aggregates of different parts are no two values of one thing: they
        have a dash for the value before, and a line below the table says so.
    """
    names = [name for name in _shown(after) if name in before]
    first, last = before_parts or {}, after_parts or {}
    differ = [name for name in names if name in first and name in last and set(first[name]) != set(last[name])]
    rows = [[n, "-" if n in differ else number(before[n]), number(after[n]), better(n)] for n in names]
    table = text_table(["", "before", "after", "better"], rows)
    if not differ:
        return table
    note = f"- not compared, because their parts differ before and after: {', '.join(differ)}"
    return "\n".join([table, "", textwrap.fill(note, WIDTH, subsequent_indent="  ")])


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 0) -> str:
    """Lay out a table: the first column to the left, the others to the right.

    Args:
        header: One title a column.
        rows: One text a column each.
        texts: 1 when the last column is text: it stands to the left and is broken into lines.

    Returns:
        Lines without a final newline.
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    if texts:
        widths[-1] = min(widths[-1], max(LEAST_TEXT, WIDTH - sum(width + 2 for width in widths[:-1])))

    def lines(cells: Sequence[str]) -> list[str]:
        padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        if not texts:
            return ["  ".join(padded).rstrip()]
        before = "  ".join(padded[:-1])
        broken = textwrap.wrap(cells[-1], widths[-1]) or [""]
        return [f"{(before if i == 0 else ' ' * len(before))}  {part}".rstrip() for i, part in enumerate(broken)]

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*lines(header), rule, *(line for row in rows for line in lines(row))])


def number(value: float) -> str:
    """Format a value for a table.

    >>> number(0.12345), number(12345.6), number(0.00012), number(float("nan"))
    ('0.123', '1.23e+04', '0.00012', 'nan')
    """
    if value == 0 or not math.isfinite(value) or 0.001 <= abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:.3g}"


def _asked(name: str, metrics: Sequence[str]) -> bool:
    """Say whether a value belongs to one of some metrics; those of a user's own always do."""
    title = name.rpartition("/")[2]
    whole = "rouge" if title in ROUGE_COLUMNS else title.removesuffix("_log10")
    return whole in metrics or whole not in (*set_scores("forget"), *AGGREGATES)


def _shown(values: Mapping[str, float]) -> list[str]:
    """Return the names without ROUGE's details, where ``rouge`` stands for them."""
    groups = {name.removesuffix("rouge") for name in values if name.rpartition("/")[2] == "rouge"}
    details = {f"{group}{column}" for group in groups for column in ROUGE_COLUMNS}
    return [name for name in values if name not in details]
