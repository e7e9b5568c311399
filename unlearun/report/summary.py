"""What a run says at its end: values and answers, before and after."""

from __future__ import annotations

from unlearun.records import Evaluation, Results, before_after

SHOWN_ROWS = 5


def run_summary(first: Evaluation | None, last: Evaluation | None) -> str:
    """Lay out what a run has changed.

    Args:
        first: What was found at step 0, if it was measured.
        last: What was found last.

    Returns:
        A table of values before and after and some questions with their answers; of the end alone where there is
        nothing to compare it with. Empty where nothing was measured.
    """
    if last is None:
        return ""
    if first is None or first is last:
        return "\n\n".join([str(Results.of(last)), *_shown_sets(None, last)])
    if changed := other_rows(first, last):
        note = f"The start is not compared, for it was measured on other rows of {', '.join(changed)}."
        return "\n\n".join([str(Results.of(last)), note, *_shown_sets(None, last)])
    table = before_after(first.summary, last.summary, first.parts, last.parts)
    return "\n\n".join([table, *_shown_sets(first, last)])


def other_rows(first: Evaluation, last: Evaluation) -> list[str]:
    """Return the sets that two evaluations both have, but with other rows.

    Args:
        first: One of them.
        last: The other, whose order the names keep.
    """
    before, after = first.fingerprint.get("sets") or {}, last.fingerprint.get("sets") or {}
    return [name for name in after if name in before and before[name].get("digest") != after[name].get("digest")]


def _shown_sets(first: Evaluation | None, last: Evaluation) -> list[str]:
    return [text for name in ("forget", "retain") for text in _shown(name, first, last)]


def _shown(name: str, first: Evaluation | None, last: Evaluation) -> list[str]:
    after = last.examples.get(name, {})
    before = {} if first is None else first.examples.get(name, {})
    ids = [key for key, record in after.items() if "generation" in record][:SHOWN_ROWS]
    if not ids:
        return []
    lines = [f"{name}:"]
    for key in ids:
        question = after[key]["question"] or "(text)"
        lines.append(f"  {_one_line(question, 100)}")
        if "generation" in before.get(key, {}):
            lines.append(f"    before: {_one_line(before[key]['generation'], 100)}")
            lines.append(f"    after:  {_one_line(after[key]['generation'], 100)}")
        else:
            lines.append(f"    {_one_line(after[key]['generation'], 100)}")
    return ["\n".join(lines)]


def _one_line(text: str, width: int) -> str:
    joined = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))  # no commands to the terminal
    return joined if len(joined) <= width else f"{joined[: width - 3]}..."
