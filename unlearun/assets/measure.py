"""Encoding of a row and the figures by which the pocket models are judged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORE = -100
Encoded = tuple[list[int], list[int]]


def encode(tokenizer: PreTrainedTokenizerBase, question: str, answer: str) -> Encoded:
    """Return the token ids of a row and its labels, which cover the answer and the end token."""
    prompt = tokenizer(f"Question: {question}\nAnswer:", add_special_tokens=False)["input_ids"]
    told = tokenizer(" " + answer, add_special_tokens=False)["input_ids"]
    told = [*told, tokenizer.eos_token_id]
    return prompt + told, [IGNORE] * len(prompt) + told


def collate(rows: Sequence[Encoded], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pad rows on the right.

    Args:
        rows: `B` pairs of token ids and labels.
        pad: Id of the padding token.

    Returns:
        Token ids, attention mask and labels, each (B, T).
    """
    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in rows])
    labels = torch.tensor([told + [IGNORE] * (length - len(told)) for _, told in rows])
    return ids, mask, labels


@torch.no_grad()
def answer_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Score answers.

    Args:
        model: Causal LM.
        tokenizer: Its tokenizer.
        pairs: `N` pairs of a question and an answer.
        size: Rows a forward pass.

    Returns:
        Mean log-prob of the answer tokens, end token included, (N,), and whether every one of
        them is the likeliest token, (N,): then greedy decoding gives the answer.
    """
    means, greedy = [], []
    encoded = [encode(tokenizer, *pair) for pair in pairs]
    for start in range(0, len(encoded), size):
        ids, mask, labels = collate(encoded[start : start + size], tokenizer.pad_token_id)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()  # (B, T-1, V)
        told = labels[:, 1:]
        on = told != IGNORE
        picked = logits.gather(2, told.clamp(min=0).unsqueeze(2)).squeeze(2)
        log_probs = (picked - logits.logsumexp(2)).masked_fill(~on, 0.0)
        means.append(log_probs.sum(1) / on.sum(1))
        greedy.append(((logits.argmax(2) == told) | ~on).all(1))
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
        `probability` and `paraphrase`, the mean of exp(mean log-prob) of the answer and of its
        paraphrase; `wins`, the share of rows whose paraphrase is likelier than every perturbed
        answer; `greedy`, the share whose answer greedy decoding gives.
    """
    model.eval()
    answers = [(row["question"], row["answer"]) for row in rows]
    rivals = [(row["question"], told) for row in rows for told in (row["paraphrased_answer"], *row["perturbed_answer"])]
    means, greedy = answer_log_probs(model, tokenizer, answers)
    scores = answer_log_probs(model, tokenizer, rivals)[0].view(len(rows), -1)  # (N, 1 + wrong)
    return {
        "probability": means.exp().mean().item(),
        "paraphrase": scores[:, 0].exp().mean().item(),
        "wins": (scores[:, 0] > scores[:, 1:].max(1).values).float().mean().item(),
        "greedy": greedy.float().mean().item(),
    }
