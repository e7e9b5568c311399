"""TOFU's aggregates in a few lines of plain Python over transformers: nothing of the package."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import ks_2samp


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@torch.no_grad()
def likelihood(model: Any, tokenizer: Any, question: str, answer: str) -> float:
    """exp of the mean log-probability of the answer's tokens and the eos behind them."""
    prompt = tokenizer(f"Question: {question}\nAnswer:")["input_ids"]
    tokens = [*tokenizer(f" {answer}")["input_ids"], tokenizer.eos_token_id]
    logprobs = model(torch.tensor([[*prompt, *tokens]])).logits[0].double().log_softmax(-1)
    return math.exp(fmean(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens)))


@torch.no_grad()
def recall(model: Any, tokenizer: Any, question: str, answer: str, new_tokens: int) -> float:
    """ROUGE-L recall of what the model says, one token after the other."""
    ids = tokenizer(f"Question: {question}\nAnswer:")["input_ids"]
    said: list[int] = []
    while len(said) < new_tokens and tokenizer.eos_token_id not in said:
        said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
    text = tokenizer.decode(said, skip_special_tokens=True)
    return RougeScorer(["rougeL"], use_stemmer=True).score(answer, text)["rougeL"].recall


def truth_ratios(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> list[float]:
    found = []
    for row in rows:
        wrong = [likelihood(model, tokenizer, row["question"], each) for each in row["perturbed_answer"]]
        right = likelihood(model, tokenizer, row["question"], row.get("paraphrased_answer", row["answer"]))
        found.append(math.exp(fmean(map(math.log, wrong))) / right)
    return found


def model_utility(model: Any, tokenizer: Any, sets: dict[str, list[dict[str, Any]]], new_tokens: int) -> float:
    """The harmonic mean of nine: probability, ROUGE-L recall and truth ratio of three sets."""
    parts = []
    for name, rows in sets.items():
        shares = []
        for row in rows:
            own = likelihood(model, tokenizer, row["question"], row["answer"])
            wrong = [likelihood(model, tokenizer, row["question"], each) for each in row["perturbed_answer"]]
            shares.append(own if name == "retain" else own / (own + sum(wrong)))
        recalls = [recall(model, tokenizer, row["question"], row["answer"], new_tokens) for row in rows]
        truths = [max(0.0, 1 - ratio) for ratio in truth_ratios(model, tokenizer, rows)]
        parts += [fmean(shares), fmean(recalls), fmean(truths)]
    return harmonic_mean(parts)


def forget_quality(ratios: list[float], retain_model_ratios: list[float]) -> float:
    return float(ks_2samp(ratios, retain_model_ratios).pvalue)
