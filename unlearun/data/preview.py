"""Show people what a model will learn and unlearn: rows with the labelled tokens marked."""

from __future__ import annotations

from collections.abc import Sequence

from unlearun.data.datamodule import UnlearningDataModule
from unlearun.data.examples import Example
from unlearun.data.formatting import Formatter
from unlearun.errors import UnlearunError

ROWS = 3


def preview(data: UnlearningDataModule, rows: int = ROWS) -> str:
    """Lay out the first rows of each set.

    Args:
        data: A connected datamodule.
        rows: How many rows a set.

    Returns:
        A text in which the labelled tokens stand between [[ and ]].

    Raises:
        UnlearunError: The datamodule is not connected to a tokenizer.
    """
    if data.formatter is None:
        raise UnlearunError("connect the datamodule to a tokenizer first")
    parts = ["labelled tokens stand between [[ and ]]; | parts tokens"]
    for name in data.sources:
        examples = data.examples(name)
        tokens = sum(example.labelled for example in examples)
        parts.append(f"{name}: {len(examples)} rows, {tokens} labelled tokens")
        alternates: dict[int, Example] = {}  # the first of each row
        for one in (data.alternates() or []) if name == "forget" else []:
            alternates.setdefault(one.example_id, one)
        formatter = data.formatter_of(name)
        for example in examples[:rows]:
            parts.append(_marked(formatter, example))
            if (alternate := alternates.get(example.example_id)) is not None:
                parts.append(f"alternate answer: {_marked(formatter, alternate, prompt=False)}")
    return "\n\n".join(parts)


def _marked(formatter: Formatter, example: Example, prompt: bool = True) -> str:
    before = str(formatter.tokenizer.decode(list(example.input_ids[: example.start]))) if prompt else ""
    return f"{before}[[{'|'.join(_pieces(formatter, example.input_ids[example.start :]))}]]"


def _pieces(formatter: Formatter, ids: Sequence[int]) -> list[str]:
    return [str(formatter.tokenizer.decode([token])) for token in ids]
