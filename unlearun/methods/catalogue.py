"""What there is to choose from: every method with what it needs, what it costs and where it comes from."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from unlearun.methods.base import UnlearningMethod
from unlearun.records.results import WIDTH

REFERENCES = {
    "logprobs": "log-probabilities of answers, computed once",
    "token_logprobs": "log-probabilities of tokens, computed once",
    "logits": "distributions at answer tokens, made of cached hidden states",
    "hidden": "hidden states, of the weights put back",
    "weights": "the weights at the start",
}
ALTERNATES = {"refusal": "a refusal", "any": "the row's own, or a refusal", "plausible": "the row's own, or made up"}


class Entry(NamedTuple):
    """What is said of a method.

    Attributes:
        name: Of the class, as ``--model`` takes it.
        does: What it does, in a line.
        reference: What it reads of the frozen model, with its own defaults.
        retain: Whether it has a retain term.
        alternates: Which other answers it needs.
        cost: What a step runs.
        source: Author, year, title and arXiv number.
    """

    name: str
    does: str
    reference: str
    retain: bool
    alternates: str
    cost: str
    source: str


def describe(cls: type[UnlearningMethod]) -> Entry:
    """Say what a method does, needs and costs.

    Args:
        cls: Its class.
    """
    method = cls("pocket")  # by name, so nothing is loaded
    text = " ".join(inspect.cleandoc(cls.__doc__ or "").split())
    found = re.search(r"Source: (.*?\(\d{4}\.\d{5}\))", text)
    needs = sorted({need for need, _ in method.reference_needs})
    return Entry(
        cls.__name__,
        inspect.cleandoc(cls.__doc__ or "").partition("\n")[0].rstrip("."),
        "; ".join(REFERENCES[need] for need in needs) or "none",
        "retain" in method.trained_sets,
        ALTERNATES[cls.alternate] if cls.alternate is not None else "none",
        cls.cost or _passes(method),
        found[1] if found else "",
    )


def _passes(method: UnlearningMethod) -> str:
    """Say what a step runs forward and backward."""
    alternates = [] if method.alternate is None else ["alternates"]
    return f"{' + '.join([*alternates, *method.trained_sets])}"


def listing(entries: Sequence[Entry]) -> str:
    """Lay out methods for people.

    Args:
        entries: What is said of each.
    """
    blocks = []
    for entry in entries:
        needs = [
            f"reference: {entry.reference}",
            f"retain set: {'yes' if entry.retain else 'no'}",
            f"other answers: {entry.alternates}",
            f"a step runs: {entry.cost}",
        ]
        lines = [entry.does, "; ".join(needs), entry.source]
        body = "\n".join(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines)
        blocks.append(f"{entry.name}\n{body}")
    return "\n\n".join([*blocks, "All options of one, explained: unlearun fit --model NAME --help"])
