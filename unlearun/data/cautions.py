"""What makes the numbers of an evaluation mean less than they seem to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from unlearun.data.examples import Example
from unlearun.records import role_of


def cautions(sets: Mapping[str, Sequence[Example]], max_new_tokens: Mapping[str, int]) -> Iterator[str]:
    """Look for sets and rows that some metrics leave out, or cannot do justice.

    Args:
        sets: The evaluated rows of each set.
        max_new_tokens: At most so many tokens of an answer are generated; a set that is not there needs no whole one.

    Yields:
        One sentence a finding.
    """
    for role in ("forget", "holdout"):
        several = [name for name in sets if role_of(name) == role]
        if len(several) > 1:
            used = role if role in several else several[0]
            yield f"{', '.join(several)} are all {role} sets; aggregates and membership inference read {used}"
    for name, rows in sets.items():
        having = {
            "a paraphrased answer": sum(row.item.paraphrase is not None for row in rows),
            "wrong answers": sum(bool(row.item.perturbed) for row in rows),
        }
        for what, count in having.items():
            if 0 < count < len(rows):
                yield f"{name}: {count} of {len(rows)} rows have {what}; metrics that read them leave the others out"
        room = max_new_tokens.get(name, max((row.labelled for row in rows), default=0))
        long = sum(row.labelled - row.ends > room for row in rows if row.item.question is not None)
        if long:
            yield (
                f"{name}: {long} of {len(rows)} answers are longer than max_new_tokens={room}: rouge and "
                "verbatim_memorization stay below 1"
            )
