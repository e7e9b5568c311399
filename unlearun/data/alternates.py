"""Other answers to the questions of the forget set, for losses that prefer them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Literal, TypeAlias

from unlearun.data.examples import Example, TokenTable
from unlearun.data.refusals import choose_refusal
from unlearun.data.rows import Item
from unlearun.errors import UnlearunError

AlternateKind: TypeAlias = Literal["any", "refusal", "plausible"]


def alternate_texts(examples: Sequence[Example], kind: AlternateKind, seed: int) -> list[Sequence[str]] | None:
    """Return the alternate answers of forget rows.

    Args:
        examples: The rows.
        kind: "refusal": one that follows from seed and row. "any": the row's own, else a refusal. "plausible": the
            row's own alone.
        seed: The seed of the data.

    Returns:
        At least one text a row; None where only the rows' own will do and they have none.

    Raises:
        UnlearunError: A row has no question.

    >>> alternate_texts([], "any", 0)
    []
    """
    found: list[Sequence[str]] = []
    for example in examples:
        item = example.item
        if item.question is None:
            raise UnlearunError(f"{item.origin}: plain text has no alternate answer; this method needs questions")
        own = () if kind == "refusal" else item.alternates
        if kind == "plausible" and not own:
            return None
        found.append(own or (choose_refusal(seed, example.example_id),))
    return found


def format_alternates(
    encode: Callable[[Sequence[Item], str], TokenTable], examples: Sequence[Example], texts: Sequence[Sequence[str]]
) -> tuple[list[list[Example]], int]:
    """Make token ids of forget rows with their alternate answers.

    Args:
        encode: How: see `TokenCache.encode`.
        examples: The rows.
        texts: The alternate answers of each.

    Returns:
        The examples of each row, with its id, and how many answers were cut.

    Raises:
        UnlearunError: Answers that cannot be kept, all at once.
    """
    owners = [example for example, answers in zip(examples, texts, strict=True) for _ in answers]
    items = [replace(owner.item, answer=text) for owner, text in zip(owners, chain(*texts), strict=True)]
    table = encode(items, "the alternate answers of the forget set")
    made = iter(table.examples([owner.item for owner in owners], [owner.example_id for owner in owners]))
    return [list(islice(made, len(answers))) for answers in texts], table.cuts
