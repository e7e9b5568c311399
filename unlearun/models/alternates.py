"""Other answers that the model makes up itself, and the file in a run folder that keeps them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from unlearun.data import GENERATED_TOGETHER, choose_refusal
from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.models.generation import continue_prompts, room_behind
from unlearun.models.policy import Policy

if TYPE_CHECKING:
    from unlearun.data import Example, Formatter, UnlearningDataModule

log = logging.getLogger(__name__)

FILE = "alternates.json"
TRIES = 3


class AlternateSettings(NamedTuple):
    """What a model is asked to make up.

    Attributes:
        prompt: What it is asked, with {question} and {answer}.
        answers: How many a row.
        tokens: How long they may be.
        seed: What they are drawn from.
    """

    prompt: str
    answers: int
    tokens: int
    seed: int


def own_alternates(
    policy: Policy, data: UnlearningDataModule, examples: Sequence[Example], wanted: AlternateSettings
) -> list[list[str]]:
    """Let the model make up other answers to the questions of some rows.

    An answer that is empty, without an end, or that of the row itself is drawn again, up to three times; what then is
    without an end is taken as it is, and where nothing is left a refusal takes its place.

    Args:
        policy: The model as it is at the start.
        data: Connected.
        examples: Rows of its forget set.
        wanted: What is asked.

    Returns:
        At least one text a row.

    Raises:
        UnlearunError: The data are not connected, or the model has no room for a question.
    """
    formatter = data.formatter_of("forget")
    prompts = [_prompt(policy, formatter, row, wanted.prompt) for row in examples]
    found: list[list[str]] = [[] for _ in examples]
    unended = refused = 0
    at_once = GENERATED_TOGETHER * data.questions_per_batch
    with torch.random.fork_rng([policy.model.device] if policy.model.device.type == "cuda" else []):
        torch.manual_seed(wanted.seed)
        for attempt in range(TRIES):
            left = [row for row, texts in enumerate(found) for _ in range(wanted.answers - len(texts))]
            some = [prompts[row] for row in left]
            new = continue_prompts(policy, formatter, some, wanted.tokens, at_once, temperature=1.0)
            for row, tokens in zip(left, new, strict=True):
                text = str(formatter.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
                ended = len(tokens) < room_behind(policy, prompts[row], wanted.tokens)
                if text and text != examples[row].item.answer.strip() and (ended or attempt == TRIES - 1):
                    found[row].append(text)
                    unended += not ended
    for example, texts in zip(examples, found, strict=True):
        if not texts:
            texts.append(choose_refusal(data.seed, example.example_id))
            refused += 1
    if unended:
        message = "%d answers that were made up have no end within alternate_tokens (%d) or the model's positions"
        log.warning(message, unended, wanted.tokens)
    if refused:
        message = "%d of %d questions got no other answer of the model's own; a refusal takes its place"
        log.warning(message, refused, len(examples))
    return found


def _prompt(policy: Policy, formatter: Formatter, row: Example, text: str) -> list[int]:
    parts = {"{question}": row.item.question or "", "{answer}": row.item.answer}
    # At one go: a question may hold the word {answer}.
    ids = formatter.prompt_ids(re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], text))
    positions = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and len(ids) >= positions:
        raise UnlearunError(
            f"{row.item.origin}: to be asked for another answer takes {len(ids)} tokens, but the model has {positions} "
            "positions; shorten the row or alternate_prompt, or give the rows other answers (alternate_key)"
        )
    return ids


def write_alternates(folder: Path, examples: Sequence[Example], texts: Sequence[Sequence[str]]) -> None:
    """Write the alternate answers into a run folder, for people and for a run that goes on.

    Args:
        folder: The run folder.
        examples: The forget rows.
        texts: The answers of each.
    """
    rows = [
        {"question": example.item.question, "answer": example.item.answer, "alternates": list(answers)}
        for example, answers in zip(examples, texts, strict=True)
    ]
    write_whole(folder / FILE, json.dumps(rows, ensure_ascii=False, indent=1))


def read_alternates(folder: Path, examples: Sequence[Example]) -> list[list[str]] | None:
    """Read what `write_alternates` wrote.

    Args:
        folder: The run folder.
        examples: The forget rows.

    Returns:
        The answers of each row; None where the file is missing, broken, or of other rows.
    """
    try:
        rows = json.loads((folder / FILE).read_text(encoding="utf-8"))
        known = {(row["question"], row["answer"]): row["alternates"] for row in rows}
        found = [known[example.item.question, example.item.answer] for example in examples]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = all(isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts) for texts in found)
    return found if whole else None
