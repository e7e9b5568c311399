"""What evaluated rows are, so that numbers of other rows are never taken for numbers of these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from unlearun.data.examples import Example
from unlearun.data.formatting import QUESTION, Formatter
from unlearun.data.sources import Source
from unlearun.records import role_of


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return 16 hexadecimal digits that change whenever a JSON value does.

    >>> digest(["a"]) == digest(["a"]), digest(["a"]) == digest(["b"])
    (True, False)
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def describe_set(name: str, source: Source, examples: Sequence[Example]) -> dict[str, Any]:
    """Say what an evaluated set is.

    Args:
        name: What it is evaluated as.
        source: Where its rows come from.
        examples: The rows that are evaluated.

    Returns:
        Its role, source, row count, and a digest of all texts.
    """
    rows = [[e.example_id, i.question, i.answer, i.paraphrase, list(i.perturbed)] for e in examples for i in [e.item]]
    named = source if isinstance(source, (str, Mapping)) and not hasattr(source, "num_rows") else type(source).__name__
    return {"role": role_of(name), "source": named, "rows": len(examples), "digest": digest(rows)}


def describe_template(formatter: Formatter) -> dict[str, Any]:
    """Say how questions became prompts.

    Args:
        formatter: What made the rows.
    """
    described: dict[str, Any] = {
        "prompt": formatter.prompt,
        "chat": digest(formatter.tokenizer.chat_template) if formatter.uses_chat else None,
        "system": formatter.system,
        "max_length": formatter.max_length,
    }
    if formatter.chat_values and formatter.uses_chat:
        described["chat_values"] = {name: str(value) for name, value in formatter.chat_values}  # YAML has dates
    if formatter.shots:
        described["shots"] = digest(formatter.shots)
    if formatter.question != QUESTION:
        described["question"] = formatter.question
    if formatter.prefill:
        described["prefill"] = formatter.prefill
    if formatter.given:
        described["given"] = formatter.given
    return described


def describe_tokenizer(formatter: Formatter) -> str:
    """Return a digest of the tokenizer's vocabulary."""
    return digest(formatter.tokenizer.get_vocab())
