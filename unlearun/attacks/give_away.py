"""Give the beginning of an answer away, and let the model finish it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from unlearun.attacks.base import Attack, Outcome
from unlearun.attacks.victim import Victim
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods import UnlearningMethod
from unlearun.metrics import ROUGE
from unlearun.records import FORGET, of_rows, only

log = logging.getLogger(__name__)

METRICS = ("verbatim_memorization", "rouge")


class GiveAway(Attack):
    """Gives away the first tokens of each answer, and has the model say the rest.

    It is measured by the share of rows of which the rest is said word for word, and by the ROUGE-L recall of the rest.
    What is compared is the same rest in what the model says, and said before unlearning, when nothing is given away: it
    must end with the rest, and with all of the word that the rest begins within. A row of which no word is left counts
    in no way: anyone ends with a full stop. Nor does one whose answer is longer than ``max_new_tokens``, for without
    help no model was let finish it, or is cut, for who knows it goes on.
    Teacher-forced metrics would not do: they give away every token but the last already, so that extraction strength
    is the same with and without an attack, but for the length that it is divided by.

    Args:
        tokens: How many tokens are given away; a way of its own each.

    Raises:
        UnlearunError: There are no numbers, or one is not above 0.
    """

    measured: ClassVar[tuple[str, str]] = ("verbatim_memorization", "rougeL_recall")
    compares_answers: ClassVar[bool] = True

    def __init__(self, tokens: Sequence[int] = (1, 2, 4)) -> None:
        if not tokens:
            raise UnlearunError("tokens is empty; say how many tokens of an answer are given away, such as 4")
        check_bounds(**{f"tokens[{at}]": (count, 1) for at, count in enumerate(tokens)})
        self.tokens = tuple(dict.fromkeys(tokens))

    def run(self, victim: Victim) -> Outcome:
        """See `Attack`."""
        outcome = Outcome()
        if any(example.item.question is None for example in victim.forget_examples):
            outcome.skipped["all"] = "the rows are plain text, of which the beginning is given away in any case"
            return outcome
        answers = _sayable(victim)
        if not answers:
            outcome.skipped["all"] = (
                f"every answer is cut, or longer than the run's max_new_tokens={_most(victim)}, so no model was let "
                "finish one without help"
            )
            return outcome
        names = {f"{FORGET}_{count}": f"given {count} token{'s' if count > 1 else ''}" for count in self.tokens}
        data = victim.forget_data(
            METRICS, {name: {"given_tokens": count} for name, count in zip(names, self.tokens, strict=True)}
        )
        found = victim.measure(victim.load(UnlearningMethod), data)
        said = {"unlearned": victim.said, "start": victim.said_at_start}
        for name, way in names.items():
            rest = {key: str(row["answer"]).strip() for key, row in found.examples[name].items()}
            endings = {key: ending(answer, rest[key]) for key, answer in answers.items() if re.search(r"\w", rest[key])}
            if not endings:
                outcome.skipped[way] = "no answer has a word left behind that"
                continue
            outcome.variants[way] = of_rows(only(found, name), {*endings})
            outcome.compared[way] = {
                side: of_the_rest(texts, endings) for side, texts in said.items() if texts is not None
            }
        return outcome


def _sayable(victim: Victim) -> dict[str, str]:
    """Return the answers that a model was let say to their end when nothing was given away, by row."""
    most, examples = _most(victim), victim.forget_examples
    whole = [one for one in examples if one.ends and one.labelled - 1 <= most]
    answers = {str(one.example_id): one.item.answer.strip() for one in whole}
    if longer := len(examples) - len(answers):
        log.warning(
            "give_away: %d of %d rows are left out, for their answers are cut, or longer than max_new_tokens=%d",
            *(longer, len(examples), most),
        )
    return answers


def _most(victim: Victim) -> int:
    return victim.plain_data.max_new_tokens(victim.forget_set)


def ending(answer: str, rest: str) -> str:
    """Return the rest of an answer with all of the word that it begins within.

    Args:
        answer: The whole.
        rest: What is left of it behind some tokens.

    >>> ending("She was born in Oslo.", "slo."), ending("She was born in Oslo.", "in Oslo.")
    ('Oslo.', 'in Oslo.')
    """
    begin = len(answer) - len(rest)
    if not answer.endswith(rest):  # a tokenizer may write it otherwise
        return rest
    while begin and re.match(r"\w\w", answer[begin - 1 :]):
        begin -= 1
    return answer[begin:]


def of_the_rest(said: Mapping[str, str], rest: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Say how much of the rest of an answer stands at the end of what a model says when nothing is given away.

    Args:
        said: What it says, by row.
        rest: What is left of the answer, by row; it begins with a word.

    Returns:
        For each row whether what is said ends with the rest, and the ROUGE-L recall of the rest.

    >>> of_the_rest({"0": "She was born in Oslo.", "1": "In 1997"}, {"0": "in Oslo.", "1": "7"})["0"]
    {'verbatim_memorization': 1.0, 'rougeL_recall': 1.0}
    """
    keys = [key for key in rest if key in said]
    texts, answers = [said[key] for key in keys], [rest[key] for key in keys]
    exact = [
        float(re.search(rf"(?<!\w){re.escape(answer)}\Z", text.strip()) is not None)
        for text, answer in zip(texts, answers, strict=True)
    ]
    rouge = ROUGE()
    recall = rouge.measure(texts, answers)[:, rouge.columns.index("rougeL_recall")].tolist()
    return {
        key: {"verbatim_memorization": hit, "rougeL_recall": value}
        for key, hit, value in zip(keys, exact, recall, strict=True)
    }
