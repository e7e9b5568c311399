"""Other answers that the model makes up itself, and the file in a run folder that keeps them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unlearun.data import choose_refusal
from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.models.generation import continue_prompts
from unlearun.models.policy import Policy

if TYPE_CHECKING:
    from unlearun.data import Example, UnlearningDataModule

log = logging.getLogger(__name__)

FILE = "alternates.json"
TRIES = 3


def own_alternates(policy: Policy, data: UnlearningDataModule, prompt: str, count: int) -> list[list[str]]:
    """Let the model make up other answers to the questions of the forget set.

    An empty answer, or that of the row itself, is drawn again, up to three times; what then is missing is left out, and
    where nothing is left a refusal takes its place.

    Args:
        policy: The model as it is at the start.
        data: Connected, with a forget set; its seed is what answers are drawn from.
        prompt: What the model is asked, with {question} and {answer}.
        count: How many a row.

    Returns:
        At least one text a row.

    Raises:
        UnlearunError: The data are not connected.
    """
    formatter, examples = data.formatter, data.examples("forget")
    if formatter is None:
        raise UnlearunError("connect the datamodule to a tokenizer first")
    asked = [
        prompt.replace("{question}", row.item.question or "").replace("{answer}", row.item.answer) for row in examples
    ]
    prompts = [formatter.prompt_ids(question) for question in asked]
    found: list[list[str]] = [[] for _ in examples]
    devices = [policy.model.device] if policy.model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(data.seed)
        for _ in range(TRIES):
            left = [row for row, texts in enumerate(found) for _ in range(count - len(texts))]
            if not left:
                break
            at_once = data.questions_per_batch
            some = [prompts[row] for row in left]
            new = continue_prompts(policy, formatter, some, data.max_new_tokens, at_once, temperature=1.0)
            for row, tokens in zip(left, new, strict=True):
                text = str(formatter.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
                if text and text != examples[row].item.answer.strip():
                    found[row].append(text)
    refused = 0
    for example, texts in zip(examples, found, strict=True):
        if not texts:
            texts.append(choose_refusal(data.seed, example.example_id))
            refused += 1
    if refused:
        message = "%d of %d questions got no other answer of the model's own; a refusal takes its place"
        log.warning(message, refused, len(examples))
    return found


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
        known = {(row["question"], row["answer"]): [str(text) for text in row["alternates"]] for row in rows}
        return [known[example.item.question, example.item.answer] for example in examples]
    except (OSError, ValueError, KeyError, TypeError):
        return None
