"""What the metrics must say, in plain Python over lists of numbers: no tensor, and nothing of the package.

An answer has ``scores``, for each of its n tokens one number a word of the vocabulary, and ``labels``, the tokens.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, harmonic_mean


@dataclass(frozen=True)
class Answer:
    scores: list[list[float]]
    labels: list[int]
    ends: bool = False
    text: str = ""

    @property
    def all_logprobs(self) -> list[list[float]]:
        """``n x V`` log-probabilities of the whole vocabulary."""
        return [[s - math.log(sum(math.exp(other) for other in row)) for s in row] for row in self.scores]

    @property
    def logprobs(self) -> list[float]:
        return [row[label] for row, label in zip(self.all_logprobs, self.labels, strict=True)]

    @property
    def hits(self) -> list[bool]:
        """Whether greedy says the token; the eos at the end does not count, unless there is nothing else."""
        hits = [max(row) == row[label] for row, label in zip(self.scores, self.labels, strict=True)]
        return hits[:-1] if self.ends and len(hits) > 1 else hits

    @property
    def standardised(self) -> list[float]:
        """(lp - μ) / σ of each token."""
        found = []
        for row, label in zip(self.all_logprobs, self.labels, strict=True):
            mean = sum(math.exp(lp) * lp for lp in row)
            deviation = math.sqrt(sum(math.exp(lp) * (lp - mean) ** 2 for lp in row))
            found.append((row[label] - mean) / deviation)
        return found


@dataclass(frozen=True)
class Question:
    id: int
    own: Answer
    paraphrase: Answer | None = None
    wrong: list[Answer] = field(default_factory=list)
    generation: str = ""
    short: str | None = None
    norm: float = 0.0
    reference: float = 0.0  # S_ref of the own answer


# ---- one answer -------------------------------------------------------------------------------------------------


def mean_logprob(answer: Answer) -> float:
    return fmean(answer.logprobs)


def probability(answer: Answer) -> float:
    return math.exp(mean_logprob(answer))


def exact_memorization(answer: Answer) -> float:
    return fmean(answer.hits)


def choice_accuracy(question: Question) -> float | None:
    """1 over the number of answers that are as likely as the right one, eos left out; 0 if a wrong one is likelier."""
    totals = [sum(answer.logprobs[: len(answer.hits)]) for answer in (question.own, *question.wrong)]
    if len(totals) == 1:
        return None
    return 1 / totals.count(totals[0]) if totals[0] == max(totals) else 0.0


def extraction_strength(answer: Answer) -> float:
    n = len(answer.hits)
    return 1 - next(k for k in range(n + 1) if all(answer.hits[k:])) / n


def lowest(values: Sequence[float]) -> float:
    return fmean(sorted(values)[: max(1, len(values) * 4 // 10)])


# ---- one question -----------------------------------------------------------------------------------------------


def truth_ratio(question: Question) -> float | None:
    if not question.wrong:
        return None
    wrong = math.prod(probability(answer) for answer in question.wrong) ** (1 / len(question.wrong))
    return wrong / probability(question.paraphrase or question.own)


def normalized_probability(question: Question) -> float:
    own = probability(question.own)
    return own / (own + sum(map(probability, question.wrong)))


ATTACKS: dict[str, Callable[[Question], float]] = {
    "loss": lambda q: mean_logprob(q.own),
    "zlib": lambda q: mean_logprob(q.own) / len(zlib.compress(q.own.text.encode())),
    "min_k": lambda q: lowest(q.own.logprobs),
    "min_k_plus_plus": lambda q: lowest(q.own.standardised),
    "reference": lambda q: (sum(q.own.logprobs) - q.reference) / len(q.own.logprobs),
}


# ---- texts of words that no stemmer changes ---------------------------------------------------------------------


def rouge(generation: str, answer: str) -> dict[str, float]:
    """Recall and F1 of words, pairs of words and the longest common subsequence."""
    said, right = (re.findall(r"[a-z0-9]+", text.lower()) for text in (generation, answer))
    found = {}
    for n in (1, 2):
        ours, theirs = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (said, right))
        found |= _recall_and_f1(f"rouge{n}", (ours & theirs).total(), ours.total(), theirs.total())
    return found | _recall_and_f1("rougeL", _longest_common(said, right), len(said), len(right))


def _longest_common(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + _longest_common(a[1:], b[1:])
    return max(_longest_common(a[1:], b), _longest_common(a, b[1:]))


def _recall_and_f1(name: str, common: int, said: int, right: int) -> dict[str, float]:
    recall, f1 = common / right if right else 0.0, 2 * common / (said + right) if said + right else 0.0
    return {f"{name}_recall": recall, f"{name}_f1": f1}


# ---- a set, or two ----------------------------------------------------------------------------------------------


def average(values: Iterable[float | None]) -> float:
    """The mean of those that there are."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else math.nan


def perplexity(questions: Sequence[Question]) -> float:
    logprobs = [value for question in questions for value in question.own.logprobs]
    return math.exp(-fmean(logprobs)) if logprobs else math.nan


def forget_truth_ratio(questions: Sequence[Question]) -> float:
    return average(None if (r := truth_ratio(q)) is None else min(r, 1 / r) for q in questions)


def kept_truth_ratio(questions: Sequence[Question]) -> float:
    return average(None if (r := truth_ratio(q)) is None else max(0.0, 1 - r) for q in questions)


def auroc(members: Sequence[float], others: Sequence[float]) -> float:
    """The share of pairs that are in the right order, ties half."""
    pairs = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    return fmean(pairs) if pairs else math.nan


def harmonic(parts: Iterable[float]) -> float:
    known = [part for part in parts if not math.isnan(part)]
    return harmonic_mean(known) if known else math.nan


def forget_quality(questions: Sequence[Question]) -> float:
    likely = [q.paraphrase for q in questions if q.paraphrase] or [q.own for q in questions]
    ratios = [truth_ratio(q) for q in questions]
    return harmonic(
        [
            1 - average(exact_memorization(q.own) for q in questions),
            1 - average(extraction_strength(q.own) for q in questions),
            1 - average(map(probability, likely)),
            1 - average(None if r is None else 1 / (1 + r) for r in ratios),
        ]
    )


def model_utility(retain: Sequence[Question], facts: Sequence[Question]) -> float:
    """``facts`` have wrong answers and no paraphrases."""
    parts = [average(probability(q.own) for q in retain), average(map(normalized_probability, facts))]
    for questions in (retain, facts):
        parts.append(average(rouge(q.generation, q.own.text)["rougeL_recall"] for q in questions))
        parts.append(kept_truth_ratio(questions))
    return harmonic(parts)
