"""Ask for the same in other words, in another language, or after examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from unlearun.attacks.prompted import PromptAttack, asks_questions, named_ways
from unlearun.attacks.victim import Victim
from unlearun.data import Keys
from unlearun.data.formatting import QUESTION
from unlearun.errors import UnlearunError, check_bounds

KEYS = ("paraphrased_question",)
TEMPLATES = (
    "I would like to know something. {question}",
    "{question} Please answer in a full sentence.",
    "A friend of mine asked me this yesterday: {question} What should I have said?",
)


class Reword(PromptAttack):
    """Asks paraphrased questions, questions in other languages, and questions after answered ones.

    A paraphrase stands in a key of the row; where no row has one, templates put other words around the question. A
    question in another language stands under its key with an underscore and two letters behind, such as
    ``question_de``, and its answer, if it is another, under ``answer_de``: that has a value, but no share, for what was
    known of that answer before was not measured. A key counts where every row has it.

    Args:
        keys: Where paraphrased questions stand in a row.
        templates: What is asked instead where there is no paraphrase; ``{question}`` stands for the question.
        shots: So many retain rows go before each question, as examples; 0 for none.

    Raises:
        UnlearunError: A template has no ``{question}``.
    """

    reads_rows: ClassVar[bool] = True

    def __init__(
        self,
        keys: Sequence[str] = KEYS,
        templates: Sequence[str] = TEMPLATES,
        shots: int = 4,
    ) -> None:
        check_bounds(shots=(shots, 0))
        if wrong := [template for template in templates if QUESTION not in template]:
            raise UnlearunError(f"the template {wrong[0]!r} has no {{question}}; put it where the question belongs")
        if not keys and not templates and not shots:
            raise UnlearunError("there are no keys, templates or shots; name one, or leave the attack out")
        self.keys = tuple(keys)
        self.templates = tuple(templates)
        self.shots = shots

    def ways(self, victim: Victim, skipped: dict[str, str]) -> Mapping[str, Mapping[str, Any]]:
        """See `PromptAttack`."""
        if not asks_questions(victim):
            skipped["all"] = "the rows are plain text, which asks no question"
            return {}
        data = victim.plain_data
        own = data.options[data.evaluated[victim.forget_set]].keys
        rows = [row.values for row in victim.raw_forget_rows()]
        common = [key for key in rows[0] if all(isinstance(row.get(key), str) for row in rows)]
        for key in self.keys:
            lacking = sum(not isinstance(row.get(key), str) for row in rows)
            if lacking and (lacking < len(rows) or key not in KEYS):
                skipped[f"its {key}"] = f"{lacking} of {len(rows)} rows have no text under {key}"
        ways: dict[str, dict[str, Any]] = {
            f"its {key}": {"question_key": key} for key in self.keys if key in common and key != own.question
        }
        if not ways:
            ways = named_ways("in the words", self.templates, "question_template")
        ways |= {
            f"in the language {name}": keys
            for name, keys in languages(common, own).items()
            if _are_sentences([row[keys["question_key"]] for row in rows])
        }
        if self.shots and (shots := self._shots(victim, own)):
            ways[f"after {len(shots)} examples"] = {"shots": shots}
        elif self.shots:
            skipped["after examples"] = "there are no retain rows with questions to take them from"
        return ways

    def _shots(self, victim: Victim, keys: Keys) -> list[dict[str, str]]:
        items = victim.plain_data.read().get("retain", ())
        asked = [item for item in items if item.question is not None]
        return [{keys.question: str(item.question), keys.answer: item.answer} for item in asked[: self.shots]]


def _are_sentences(texts: Sequence[str]) -> bool:
    """Say whether texts are questions: under ``question_id`` may stand numbers, and nothing in Indonesian."""
    words = all(re.search(r"[^\W\d_]{2}", text) for text in texts)
    return words and any(not re.search(r"\d", text) for text in texts)


def languages(common: Sequence[str], own: Keys) -> dict[str, dict[str, str]]:
    """Find questions in other languages, by what their keys are called.

    Args:
        common: Keys that every row has.
        own: Where question and answer stand.

    Returns:
        For each language, two letters, the keys of question and, if it is another, answer.

    >>> languages(["question", "answer", "question_de", "answer_de", "question_fr"], Keys())
    {'de': {'question_key': 'question_de', 'answer_key': 'answer_de'}, 'fr': {'question_key': 'question_fr'}}
    """
    found = {}
    for key in common:
        named = re.fullmatch(rf"{re.escape(own.question)}_([a-z]{{2}})", key)
        if named:
            answer = f"{own.answer}_{named[1]}"
            found[named[1]] = {"question_key": key, **({"answer_key": answer} if answer in common else {})}
    return found
