"""TOFU's eval_log_aggregated.json: one log a set, in each a mapping from example to value for every column.

Source: Maini 2024, TOFU (2401.06121).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unlearun.errors import UnlearunError
from unlearun.records.scores import ROUGE_COLUMNS
from unlearun.records.stated import Stated, mapping, number

SETS = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
COLUMNS = {
    "avg_gt_loss": "answer_loss",
    "avg_paraphrased_loss": "paraphrase_loss",
    "average_perturb_loss": "wrong_loss",
    "gt_loss": "logprob",
    "num_token_gt": "tokens",
    **{name: name for name in ROUGE_COLUMNS},
}
TEXTS = ("question", "generation", "answer")


def recognises(log: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say whether a JSON value is such a log, or some of it."""
    return isinstance(log, dict) and any(file in log for file in SETS)


def stated(log: dict[str, Any], where: str) -> Iterator[Stated]:
    """Yield all values of a log.

    Args:
        log: The JSON value.
        where: The file, for messages.

    Raises:
        UnlearunError: The log is not of the shape that TOFU writes.
    """
    for file, group in SETS.items():
        columns = mapping(log.get(file), f"{where}: {file}")
        for key, column in COLUMNS.items():
            place = f"{where}: {file}: {key}"
            for index, value in mapping(columns.get(key), place).items():
                signed = -number(value, f"{place}: {index}") if column == "logprob" and value is not None else value
                yield Stated(group, index, column, signed, f"{place}: {index}")
        place = f"{where}: {file}: generated_text"
        for index, texts in mapping(columns.get("generated_text"), place).items():
            if not isinstance(texts, list) or len(texts) != len(TEXTS):
                raise UnlearunError(f"{place}: {index} is no list of [prompt, generation, reference]")
            for column, text in zip(TEXTS, texts, strict=True):
                yield Stated(group, index, column, text, f"{place}: {index}")
