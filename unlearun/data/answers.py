"""All answers to a question as token ids, and what a model is asked and should say when it answers itself."""

from __future__ import annotations

from unlearun.data.batch import OWN, PARAPHRASE, WRONG
from unlearun.data.examples import Example
from unlearun.data.formatting import Formatter

# A plain text is continued after so many of its tokens, at most.
CONTINUED_AFTER = 32


def all_answers(formatter: Formatter, example: Example) -> tuple[list[Example], int]:
    """Format what else a row says about its question.

    An answer that must be cut is left out: half of it would be likelier than the whole, right or wrong.

    Args:
        formatter: What made the row.
        example: The row with its own answer.

    Returns:
        The row itself, then its paraphrase and its wrong answers, as far as it has them, all with its id; and how
        many were left out.
    """
    item = example.item
    others = [] if item.paraphrase is None else [(PARAPHRASE, item.paraphrase)]
    others += [(WRONG + i, text) for i, text in enumerate(item.perturbed)]
    formatted = [formatter.format(item, example.example_id, text, kind) for kind, text in others]
    return [example, *(answer for answer, cut in formatted if not cut)], sum(cut for _, cut in formatted)


def answer_text(formatter: Formatter, example: Example) -> str:
    """Return the labelled tokens of a row as text: the answer, or what is left of it where it was cut."""
    item = example.item
    if item.question is not None and example.ends and example.kind == OWN and not formatter.given:
        return item.answer
    labelled = list(example.input_ids[example.start :])
    return str(
        formatter.tokenizer.decode(labelled[:-1] if example.ends else labelled, skip_special_tokens=True)
    ).strip()


def prompt_length(example: Example) -> int:
    """Return how many tokens of a row stand before what the model is to say itself.

    Args:
        example: A question, whose answer is generated, or a plain text, which is continued.
    """
    if example.item.question is not None:
        return example.start
    return min(CONTINUED_AFTER, -(-len(example.input_ids) // 2))


def prompt_text(formatter: Formatter, example: Example) -> str:
    """Return what a model is asked, as people read it: the question, or the beginning of a plain text.

    Args:
        formatter: What made the row.
        example: The row.
    """
    if example.item.question is not None:
        return example.item.question
    beginning = list(example.input_ids[: prompt_length(example)])
    return str(formatter.tokenizer.decode(beginning, skip_special_tokens=True))


def expected_text(formatter: Formatter, example: Example, max_new_tokens: int) -> str:
    """Return what a model that has memorised a row says after its prompt.

    Args:
        formatter: What made the row.
        example: The row.
        max_new_tokens: How far a plain text, a prompt whose set ``continues``, or an answer that is begun already, is
            continued.
    """
    if example.item.question is not None and not formatter.continues and not formatter.given:
        return example.item.answer.strip()
    start = prompt_length(example)
    following = list(example.input_ids[start : start + max_new_tokens])
    return str(formatter.tokenizer.decode(following, skip_special_tokens=True)).strip()
