"""What a published file states of its examples, and our columns that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from unlearun.errors import UnlearunError

# Questions of these sets come with wrong options and no paraphrase: the answer stands in for it.
WITH_OPTIONS = ("real_authors", "world_facts")
LOSSES = ("answer_loss", "paraphrase_loss", "wrong_loss")
TEXTS = ("question", "answer", "generation")
# exp of more is no double. A ratio this far from 1 says no more by being farther.
LARGEST_EXPONENT = 700.0
# -log p is at least 0, but for rounding in the precision that it was computed in.
LEAST_LOSS = -0.01


class Stated(NamedTuple):
    """One value of a published file.

    Attributes:
        group: The set.
        example: Its id.
        column: One of ours, or of `LOSSES`: means over tokens, of one answer or of several.
        value: Not checked yet; null says that there is none.
        where: The file and the keys in it, for messages.
    """

    group: str
    example: str
    column: str
    value: Any
    where: str


def to_examples(values: Iterable[Stated]) -> dict[str, dict[str, dict[str, Any]]]:
    """Turn what a file states into records, for each set and example.

    Args:
        values: One at a time.

    Raises:
        UnlearunError: A value is not what its column holds.
    """
    sets: dict[str, dict[str, dict[str, Any]]] = {}
    for group, example, column, value, where in values:
        record = sets.setdefault(group, {}).setdefault(example, {})
        if value is not None and not (isinstance(value, list) and (None in value or not value)):
            record[column] = _checked(column, value, where)
    for group, records in sets.items():
        for record in records.values():
            losses = {column: record.pop(column) for column in LOSSES if column in record}
            record.update({**likelihoods(losses, group in WITH_OPTIONS), **record})
    return sets


def likelihoods(losses: dict[str, list[float]], options: bool) -> dict[str, float]:
    """Return the columns that follow from token-mean losses -S/n of the answers to a question.

    Args:
        losses: Those of `LOSSES` that there are.
        options: Whether wrong answers are options to choose from, and the answer stands in for a paraphrase.

    Returns:
        Probability and, where there are wrong answers, the truth ratio R.

    >>> likelihoods({"answer_loss": [1.0], "wrong_loss": [1.0, 1.0]}, options=True)["probability"]
    0.3333333333333333
    """
    answer, paraphrase, wrong = (losses.get(column) for column in LOSSES)
    columns = {}
    if answer is not None and not options:
        columns["probability"] = math.exp(-_mean(answer))
    if answer is not None and options and wrong is not None:  # p_c / (p_c + Σ p_w), divided by p_c
        columns["probability"] = 1 / (1 + sum(_exp(_mean(answer) - loss) for loss in wrong))
    if paraphrase is not None and not options:
        columns["paraphrase_probability"] = math.exp(-_mean(paraphrase))
    right = answer if options and paraphrase is None else paraphrase
    if right is not None and wrong is not None:
        columns["truth_ratio"] = _exp(_mean(right) - _mean(wrong))
    return columns


def mapping(value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Check that a value is a mapping; null is an empty one.

    Args:
        value: The JSON value.
        where: The file and the keys in it.

    Raises:
        UnlearunError: It is none.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnlearunError(f"{where} is {_short(value)}; expected a mapping")
    return value


def number(value: Any, where: str) -> float:  # noqa: ANN401 - any JSON value
    """Check that a value is a number.

    Args:
        value: The JSON value.
        where: The file and the keys in it.

    Raises:
        UnlearunError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UnlearunError(f"{where} is {_short(value)}; expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise UnlearunError(f"{where} is {_short(value)}; expected a number that a double holds") from error


def _checked(column: str, value: Any, where: str) -> str | float | list[float]:  # noqa: ANN401 - any JSON value
    if column in LOSSES:
        return [_loss(loss, where) for loss in (value if isinstance(value, list) else [value])]
    if column not in TEXTS:
        return number(value, where)
    if not isinstance(value, str):
        raise UnlearunError(f"{where} is {_short(value)}; expected a text")
    return value


def _loss(value: Any, where: str) -> float:  # noqa: ANN401 - any JSON value
    loss = number(value, where)
    if loss < LEAST_LOSS:
        raise UnlearunError(
            f"{where} is {loss:g}; expected a loss, the mean of -log p over tokens, which is at least 0"
        )
    return loss


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses)


def _exp(exponent: float) -> float:
    return math.exp(min(exponent, LARGEST_EXPONENT))
