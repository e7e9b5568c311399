"""Plain text tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Which way is better, by role and metric: a set's role is what its name begins with, else it is to be kept.
_KEPT = {"perplexity": "lower", "probability": "higher", "exact_memorization": "higher", "short_answer": "higher"}
_OPPOSITE = {"higher": "lower", "lower": "higher"}
DIRECTIONS = {"forget": {name: _OPPOSITE[way] for name, way in _KEPT.items()}, "retain": _KEPT, "holdout": {}}


def better(name: str) -> str:
    """Say which direction is better.

    Args:
        name: ``set/metric``, or an aggregate.

    Returns:
        "higher", "lower", or an empty string where neither is.

    >>> better("forget/probability"), better("real_authors/probability"), better("model_utility")
    ('lower', 'higher', 'higher')
    """
    group, _, metric = name.rpartition("/")
    if not group:
        return "higher"
    role = next((role for role in ("forget", "holdout") if group.startswith(role)), "retain")
    return DIRECTIONS[role].get(metric, "")


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table: the first column to the left, the others to the right.

    Args:
        header: One title a column.
        rows: One text a column each.

    Returns:
        Lines without a final newline.
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        padded = [first.ljust(widths[0])] + [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)])


def number(value: float) -> str:
    """Format a value for a table.

    >>> number(0.12345), number(12345.6), number(float("nan"))
    ('0.123', '1.23e+04', 'nan')
    """
    return f"{value:.3g}" if abs(value) >= 1000 else f"{value:.3f}"


def before_after(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Lay out two evaluations side by side.

    Args:
        before: Values at step 0.
        after: Values at the end.

    Returns:
        A table with the direction that is better.
    """
    rows = [
        [name, number(before[name]), number(value), better(name)] for name, value in after.items() if name in before
    ]
    return text_table(["", "before", "after", "better"], rows)


class Results(dict[str, float]):
    """Values of an evaluation by name; printing it gives a table.

    A metric of the forget set stands under its bare name, those of other sets under ``set/metric``.
    """

    def __str__(self) -> str:
        """Return a table with the direction that is better."""
        rows = []
        for name, value in self.items():
            known = name if "/" in name or name not in DIRECTIONS["forget"] else f"forget/{name}"
            rows.append([name, number(value), better(known)])
        return text_table(["", "value", "better"], rows)
