"""Answers to questions, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from unlearun.data import prompt_length
from unlearun.models.policy import Policy
from unlearun.models.sharding import in_company

if TYPE_CHECKING:
    from unlearun.data import Example, Formatter


def answers_of(
    policy: Policy,
    formatter: Formatter,
    examples: Sequence[Example],
    max_new_tokens: int = 48,
    batch_size: int = 40,
    temperature: float = 0.0,
) -> list[str]:
    """Let the model answer the questions of some rows.

    Args:
        policy: The model.
        formatter: What made the rows.
        examples: Rows; a plain text is continued after its first 32 tokens at most.
        max_new_tokens: At most so many tokens an answer.
        batch_size: Questions at a time.
        temperature: 0 is greedy; see `Policy.generate`.

    Returns:
        One text a row, in the order given, without special tokens.
    """
    prompts = [list(example.input_ids[: prompt_length(example)]) for example in examples]
    continuations = continue_prompts(policy, formatter, prompts, max_new_tokens, batch_size, temperature)
    answers = []
    for example, prompt, tokens in zip(examples, prompts, continuations, strict=True):
        length = len(tokens)
        if example.item.question is None:  # a piece of text is compared with what is left of it
            length = min(length, len(example.input_ids) - len(prompt))
        text = str(formatter.tokenizer.decode(tokens[:length], skip_special_tokens=True))
        answers.append((text if example.item.question is None else formatter.until_next_question(text)).strip())
    return answers


def room_behind(policy: Policy, prompt: Sequence[int], max_new_tokens: int) -> int:
    """Return how many tokens an answer may have: as many as were asked for, or as many as the model has positions left.

    Args:
        policy: The model.
        prompt: Token ids.
        max_new_tokens: How many were asked for.
    """
    positions = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    return max_new_tokens if positions is None else max(1, min(max_new_tokens, positions - len(prompt)))


def continue_prompts(
    policy: Policy,
    formatter: Formatter,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
) -> list[list[int]]:
    """Let the model continue prompts.

    Args:
        policy: The model.
        formatter: Knows what ends an answer.
        prompts: Token ids.
        max_new_tokens: At most so many tokens each.
        batch_size: Prompts at a time.
        temperature: 0 is greedy; see `Policy.generate`.

    Returns:
        The new tokens of each, up to its end, in the order given.
    """
    return in_company(
        policy, lambda: _continue_prompts(policy, formatter, prompts, max_new_tokens, batch_size, temperature)
    )


def _continue_prompts(
    policy: Policy,
    formatter: Formatter,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
) -> list[list[int]]:
    tokenizer, end_ids = formatter.tokenizer, [formatter.end_id]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id != formatter.end_id:
        end_ids.append(int(tokenizer.eos_token_id))
    device = next(policy.parameters()).device
    rooms = [room_behind(policy, prompt, max_new_tokens) for prompt in prompts]
    batches: list[list[int]] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        # Or a long prompt would cut the answers to the shorter ones beside it.
        if batches and len(batches[-1]) < batch_size and rooms[i] == rooms[batches[-1][0]]:
            batches[-1].append(i)
        else:
            batches.append([i])
    found: list[list[int]] = [[]] * len(prompts)
    for chosen in batches:
        longest = max(len(prompts[i]) for i in chosen)
        pads = [longest - len(prompts[i]) for i in chosen]
        ids = torch.tensor([[end_ids[0]] * pad + prompts[i] for pad, i in zip(pads, chosen, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads])
        room = rooms[chosen[0]]
        new = policy.generate(ids.to(device), mask.to(device), room, end_ids, temperature).tolist()
        for i, tokens in zip(chosen, new, strict=True):
            length = next((at for at, token in enumerate(tokens) if token in end_ids), len(tokens))
            found[i] = tokens[:length]
    return found
