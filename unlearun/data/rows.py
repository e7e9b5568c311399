"""Check rows and turn them into questions and answers, or into plain text."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

from unlearun.data.sources import Row
from unlearun.errors import SHOWN, UnlearunError, all_at_once, closest, shown

log = logging.getLogger(__name__)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HALF_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Keys:
    """Which key of a row holds what.

    Attributes:
        question: The prompt.
        answer: What is learnt or unlearnt.
        alternate: Another answer, for DPO; None for refusals.
        paraphrase: The answer in other words.
        perturbed: Wrong answers, a list.
        text: Plain text, of a row without a question.
        short_answer: The words that a right answer must hold.
        topic: What the row is about.
        choices: The answers to choose from, a list; the answer is then the place of the right one, from 0.
    """

    question: str = "question"
    answer: str = "answer"
    alternate: str | None = None
    paraphrase: str = "paraphrased_answer"
    perturbed: str = "perturbed_answer"
    text: str = "text"
    short_answer: str = "short_answer"
    topic: str = "topic"
    choices: str = "choices"


@dataclass(frozen=True, slots=True)
class Item:
    """A row that has been checked.

    Attributes:
        origin: Where the row stands, for messages.
        question: The prompt; None for plain text.
        answer: The answer, or the text.
        alternates: The row's own alternate answers, maybe none.
        paraphrase: The answer in other words, if any.
        perturbed: Wrong answers, maybe none.
        short_answer: The words that a right answer must hold, if any.
        topic: What the row is about, if it says so.
    """

    origin: str
    question: str | None
    answer: str
    alternates: Sequence[str] = field(default=())
    paraphrase: str | None = None
    perturbed: Sequence[str] = field(default=())
    short_answer: str | None = None
    topic: str | None = None


def check_rows(rows: Sequence[Row], keys: Keys, where: str, needs_alternate: bool = False) -> list[Item]:
    """Check the keys and types of all rows of a set.

    Args:
        rows: What the source gave.
        keys: Which key holds what.
        where: The set, as messages should call it.
        needs_alternate: Whether the alternate key, when there is one, must be in every row.

    Returns:
        One item a row, in the same order.

    Raises:
        UnlearunError: All problems at once, the first ten with row, key, what was found and what to do.
    """
    problems: list[str] = []
    items = []
    for row in rows:
        before = len(problems)
        item = _check(row, keys, needs_alternate, problems)
        if len(problems) == before:
            items.append(item)
    if problems:
        raise all_at_once(problems, where)
    return items


def without_short_texts(rows: Sequence[Row], keys: Keys, least: int, where: str) -> Sequence[Row]:
    """Leave out plain text that is too short to learn from.

    Args:
        rows: What the source gave.
        keys: Which key holds what.
        least: So many characters a text must have, space around it not counted.
        where: The set, as messages should call it.

    Raises:
        UnlearunError: None is left.
    """

    def is_short(row: Row) -> bool:
        text = row.values.get(keys.text)
        return isinstance(text, str) and keys.question not in row.values and len(text.strip()) < least

    kept = [row for row in rows if not is_short(row)] if least else rows
    if len(kept) == len(rows):
        return rows
    if not kept:
        raise UnlearunError(f"{where}: all {len(rows)} texts have fewer than {least} characters; lower min_characters")
    log.info(
        "%s: %d of %d texts have fewer than %d characters, and are left out",
        where,
        len(rows) - len(kept),
        len(rows),
        least,
    )
    return kept


def join_texts(items: Sequence[Item], where: str) -> list[Item]:
    """Join plain texts to one, with an empty line between.

    Args:
        items: The rows of a set.
        where: The set, as messages should call it.

    Raises:
        UnlearunError: A row has a question.
    """
    if asked := [item.origin for item in items if item.question is not None]:
        raise UnlearunError(f"{where}: {asked[0]} has a question; joined: true takes plain texts alone")
    return [replace(items[0], answer="\n\n".join(item.answer for item in items))]


def _check(row: Row, keys: Keys, needs_alternate: bool, problems: list[str]) -> Item:
    topic = _optional_text(row, keys.topic, "topic", problems)
    if not _has(row, keys.question) and _has(row, keys.text):
        return Item(row.origin, None, _text(row, keys.text, "text_key", problems) or "", topic=topic)
    question = _text(row, keys.question, "question_key", problems) or ""
    perturbed: Sequence[str] = ()
    if isinstance(row.values.get(keys.choices), (list, tuple)) and not isinstance(row.values.get(keys.answer), str):
        question, answer, perturbed = _multiple_choice(row, keys, question, problems)
    else:
        answer = _text(row, keys.answer, "answer_key", problems) or ""
        if _has(row, keys.perturbed):
            perturbed = _texts(row, keys.perturbed, "perturbed_key", problems)
    alternates: Sequence[str] = ()
    if needs_alternate and keys.alternate is not None:
        alternates = _texts(row, keys.alternate, "alternate_key", problems)
    return Item(
        row.origin,
        question,
        answer,
        alternates,
        _optional_text(row, keys.paraphrase, "paraphrase_key", problems),
        perturbed,
        _optional_text(row, keys.short_answer, "short_answer", problems),
        topic,
    )


def _multiple_choice(row: Row, keys: Keys, question: str, problems: list[str]) -> tuple[str, str, Sequence[str]]:
    """Put the choices under the question, each with its letter; return it, the right letter and the wrong ones."""
    choices = _texts(row, keys.choices, "choices", problems)
    if _is_missing(row, keys.answer, "answer_key", problems):
        return question, "", ()
    right = row.values[keys.answer]
    if not 2 <= len(choices) <= len(LETTERS):
        problems.append(
            f"{row.origin}: key {keys.choices!r} has {len(choices)} texts; expected 2 to {len(LETTERS)} answers"
        )
    elif not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(choices):
        problems.append(
            f"{row.origin}: key {keys.answer!r} is {shown(right)}; expected the place of the right one of the "
            f"{keys.choices}, 0 to {len(choices) - 1}"
        )
    else:
        letters = LETTERS[: len(choices)]
        lines = [f"{letter}. {choice.strip()}" for letter, choice in zip(letters, choices, strict=True)]
        return "\n".join([question.strip(), *lines]), letters[right], tuple(letters[:right] + letters[right + 1 :])
    return question, "", ()


def _has(row: Row, key: str) -> bool:
    """Say whether a row has a value: tables give every row every column, None where there is nothing."""
    return row.values.get(key) is not None


def _optional_text(row: Row, key: str, setting: str, problems: list[str]) -> str | None:
    return _text(row, key, setting, problems) if _has(row, key) else None


def _text(row: Row, key: str, setting: str, problems: list[str]) -> str | None:
    if _is_missing(row, key, setting, problems):
        return None
    return _check_text(row.values[key], f"{row.origin}: key {key!r}", problems)


def _is_missing(row: Row, key: str, setting: str, problems: list[str]) -> bool:
    if key in row.values:
        return False
    found, hint = _said_of(key, tuple(map(str, islice(row.values, SHOWN))))
    more = ", ..." if len(row.values) > SHOWN else ""
    problems.append(
        f"{row.origin}: key {key!r} is missing (found: {found}{more}).{hint} Add it, or name another with {setting}"
    )
    return True


@lru_cache(maxsize=64)  # a file has the same keys in every row
def _said_of(key: str, keys: tuple[str, ...]) -> tuple[str, str]:
    return ", ".join(keys) or "no keys", closest(key, keys)


def _check_text(value: object, place: str, problems: list[str]) -> str | None:
    if not isinstance(value, str):
        problems.append(f"{place} is {type(value).__name__} ({shown(value)}); expected text, in quotes")
        return None
    if not value.strip():
        problems.append(f"{place} is empty; write some text, or remove the row")
        return None
    if HALF_PAIR.search(value):
        problems.append(
            f"{place} holds half a surrogate pair ({shown(value)}), which no tokenizer takes; mend the text"
        )
        return None
    return value


def _texts(row: Row, key: str, setting: str, problems: list[str]) -> tuple[str, ...]:
    if _is_missing(row, key, setting, problems):
        return ()
    values = row.values[key]
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, (list, tuple)) or not values:
        problems.append(f"{row.origin}: key {key!r} is {shown(values)}; expected a list of texts (see {setting})")
        return ()
    checked = [_check_text(value, f"{row.origin}: key {key!r}, entry {i}", problems) for i, value in enumerate(values)]
    return tuple(text for text in checked if text is not None)
