"""Attacks that ask in another way, and change nothing of the model: each way is an evaluated set of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from unlearun.attacks.base import Attack, Outcome
from unlearun.attacks.victim import CHEAP, Victim
from unlearun.data import UnlearningDataModule
from unlearun.methods import UnlearningMethod
from unlearun.records import FORGET, only

# More tokens than the words around a question take; pieces of plain text stay as long as they were.
ROOM = 2048


class PromptAttack(Attack):
    """Asks the forget rows in several ways, each described by the options of a set, in one pass over all of them."""

    @abstractmethod
    def ways(self, victim: Victim, skipped: dict[str, str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the ways to ask.

        Args:
            victim: The model and its data.
            skipped: What cannot be tried is put down there, and why.

        Returns:
            For each, in words, the options of a source, such as ``prefill``.
        """

    def run(self, victim: Victim) -> Outcome:
        """Ask in every way, and measure how well the answers follow.

        Args:
            victim: The model and its data.
        """
        outcome = Outcome()
        ways = self.ways(victim, outcome.skipped)
        if not ways:
            return outcome
        method = victim.load(UnlearningMethod)
        positions = getattr(method.model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        data, names = _asked_in(victim, ways)
        for name, way in names.items():
            longest = max(len(example.input_ids) for example in data.evaluated_examples(name))
            if longest > positions:
                outcome.skipped[way] = f"a row has {longest} tokens then, and the model {positions} positions"
        if outcome.skipped.keys() & ways.keys():
            ways = {way: options for way, options in ways.items() if way not in outcome.skipped}
            if not ways:
                return outcome
            data, names = _asked_in(victim, ways)
        found = victim.measure(method, data)
        for name, way in names.items():
            outcome.variants[way] = only(found, name)
            if "answer_key" in ways[way]:  # another answer, which was never asked for before
                outcome.compared[way] = {}
        return outcome


def _asked_in(victim: Victim, ways: Mapping[str, Mapping[str, Any]]) -> tuple[UnlearningDataModule, dict[str, str]]:
    """Return the forget rows as sets, one a way to ask, and which set is which way."""
    names = {f"{FORGET}_{number}": way for number, way in enumerate(ways)}
    longest = victim.plain_data.formatter_of(victim.forget_set).max_length + (ROOM if asks_questions(victim) else 0)
    # Of these sets alone: rows of others, which are read as well, may have been cut to what the model can take.
    data = victim.forget_data(CHEAP, {name: {**ways[way], "max_length": longest} for name, way in names.items()})
    data.connect(victim.tokenizer, ())
    return data, names


def named(what: str, text: str, width: int = 32) -> str:
    """Name a way by the beginning of the text that it uses.

    Args:
        what: The kind of way.
        text: What it uses.
        width: At most so many characters of it.

    >>> named("in the words", "Tell me: {question}", 12)
    "in the words 'Tell me: ...'"
    """
    return f"{what} {text if len(text) <= width else f'{text[: width - 3]}...'!r}"


def named_ways(what: str, texts: Sequence[str], option: str) -> dict[str, dict[str, Any]]:
    """Return a way for each of some texts, named by its beginning, and by a number where several begin alike.

    Args:
        what: The kind of way.
        texts: What the ways use.
        option: The option of a source that takes one.

    >>> list(named_ways("in the role", ["A judge. {question}", "A judge. {question}!"], "question_template"))
    ["in the role 'A judge. {question}'", "in the role 'A judge. {question}!'"]
    """
    ways: dict[str, dict[str, Any]] = {}
    for text in dict.fromkeys(texts):
        name, like = named(what, text), 1
        while name in ways:
            like += 1
            name = f"{named(what, text)} ({like})"
        ways[name] = {option: text}
    return ways


def asks_questions(victim: Victim) -> bool:
    """Say whether the forget rows are questions, and neither plain text nor prompts that an answer merely goes on.

    Args:
        victim: The model and its data.
    """
    if victim.plain_data.formatter_of(victim.forget_set).continues:
        return False
    return all(example.item.question is not None for example in victim.forget_examples)
