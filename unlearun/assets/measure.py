"""The figures by which the pocket models are judged.

Shapes: N answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlearun.data import Example, Formatter, Item, collate
from unlearun.models import Policy
from unlearun.ops import sequence_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Return questions and answers as the library formats them by default.

    Args:
        tokenizer: The model's tokenizer.
        pairs: N pairs of a question and an answer.
    """
    formatter = Formatter(tokenizer)
    return formatter.format_all([Item("pocket", *pair) for pair in pairs], "pocket")[0]


@torch.no_grad()
def score(policy: Policy, examples: Sequence[Example], size: int = 64) -> tuple[Tensor, Tensor]:
    """Score answers.

    Args:
        policy: The model.
        examples: N rows.
        size: Rows a forward pass.

    Returns:
        Mean log-prob of the answer tokens, end token included, (N,), and whether every one of them is the likeliest
        token, (N,): then greedy decoding gives the answer.
    """
    means, greedy = [], []
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size], pad_id=0)
        stats = policy(batch, "stats")
        total, count = sequence_logprobs(stats.logprobs, batch.mask)
        means.append(total / count)
        greedy.append((stats.hits | ~batch.mask).all(-1))
    return torch.cat(means), torch.cat(greedy)


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Return the figures of a model on rows with paraphrased and perturbed answers.

    Args:
        model: Causal LM.
        tokenizer: Its tokenizer.
        rows: Rows with `question`, `answer`, `paraphrased_answer` and `perturbed_answer`.

    Returns:
        `probability` and `paraphrase`, the mean of exp(mean log-prob) of the answer and of its paraphrase; `wins`,
        the share of rows whose paraphrase is likelier than every perturbed answer; `greedy`, the share whose answer
        greedy decoding gives.
    """
    policy = Policy(model).eval()
    answers = [(row["question"], row["answer"]) for row in rows]
    rivals = [(row["question"], told) for row in rows for told in (row["paraphrased_answer"], *row["perturbed_answer"])]
    means, greedy = score(policy, encode(tokenizer, answers))
    scores = score(policy, encode(tokenizer, rivals))[0].view(len(rows), -1)  # (rows, 1 + wrong)
    return {
        "probability": means.exp().mean().item(),
        "paraphrase": scores[:, 0].exp().mean().item(),
        "wins": (scores[:, 0] > scores[:, 1:].max(1).values).float().mean().item(),
        "greedy": greedy.float().mean().item(),
    }
