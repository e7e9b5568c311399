"""One harness for all metrics: each with what it is fed and what it must say.

A spawned process imports it by name, as it does the user's own metrics below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, NamedTuple

import torch
from metrics import references as right
from metrics.questions import DEALS, SETS, TRAITS, Share, deal, make_batch
from metrics.references import Question
from torch import Tensor
from torchmetrics import Metric

from unlearun import metrics as ours
from unlearun.data import Batch
from unlearun.metrics import EvaluationSuite
from unlearun.metrics.membership import TITLES
from unlearun.ops import TokenStats
from unlearun.records import ROUGE_COLUMNS, Evaluation

# ---- a user's own metrics ---------------------------------------------------------------------------------------


class AnswerLength(ours.TokenMetric):
    """The labelled tokens of an answer, times something, in single precision."""

    title = "answer_length"

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.times = times

    def measure(self, stats: TokenStats, batch: Batch) -> Tensor:
        return self.times * batch.mask.sum(-1, keepdim=True).float()


class WordCount(ours.TextMetric):
    """The words that the model says."""

    title = "word_count"
    higher_is_better = True

    def measure(self, generated: Sequence[str], references: Sequence[str]) -> Tensor:
        return torch.tensor([[len(text.split())] for text in generated])


class NoMetric:
    """What somebody took for one."""


# ---- metrics ----------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A metric and what it must say.

    Attributes:
        make: The metric.
        arguments: Of update, from the name of a set and some of its questions.
        value: What compute must return, from the questions of each of the sets.
        record: What the record of a question must be; None of one that has none.
        sets: What it is fed.
        counts_eos: Whether it reads the number of the token that ends an answer; None of one that is fed no tokens.
    """

    make: Callable[[], Metric]
    arguments: Callable[..., tuple[Any, ...]]
    value: Callable[..., Any]
    record: Callable[[Question], dict[str, float] | None] | None = None
    sets: tuple[str, ...] = ("forget",)
    counts_eos: bool | None = True


def tokens(name: str, questions: Sequence[Question], **layout: Any) -> tuple[Any, ...]:
    return make_batch(questions, **layout)


def with_reference(name: str, questions: Sequence[Question], **layout: Any) -> tuple[Any, ...]:
    stats, batch = make_batch(questions, **layout)
    known = {q.id: q.reference for q in questions}
    return stats, batch, torch.tensor([known.get(i, 0.0) for i in batch.example_id.tolist()], dtype=torch.float64)


def membership(name: str, questions: Sequence[Question], **layout: Any) -> tuple[Any, ...]:
    stats, batch, reference = with_reference(name, questions, **layout)
    return stats, batch, name == "forget", reference


def texts(name: str, questions: Sequence[Question]) -> tuple[Any, ...]:
    return [q.generation for q in questions], [q.own.text for q in questions], [q.id for q in questions]


def short_answers(name: str, questions: Sequence[Question]) -> tuple[Any, ...]:
    graded = [q for q in questions if q.short is not None]
    return [q.generation for q in graded], [q.short for q in graded], [q.id for q in graded]


def norms(name: str, questions: Sequence[Question]) -> tuple[Any, ...]:
    lengths = torch.tensor([q.norm for q in questions], dtype=torch.float64)
    return lengths, torch.tensor([q.id for q in questions], dtype=torch.long)


def of_a_set(name: str, questions: Sequence[Question], **layout: Any) -> tuple[Any, ...]:
    stats, batch = make_batch(questions, **layout)
    said = {q.id: (q.generation, q.own.text) for q in questions}
    ids = [i for i in dict.fromkeys(batch.example_id.tolist()) if i in said]
    return name, stats, batch, [said[i][0] for i in ids], [said[i][1] for i in ids]


def mean(
    make: Callable[[], Metric],
    title: str,
    of: Callable[[Question], float | None],
    arguments: Callable[..., tuple[Any, ...]] = tokens,
    **more: Any,
) -> Case:
    """A metric whose value is the mean of what is recorded of each question."""
    return Case(
        make,
        arguments,
        lambda *sets: right.average(map(of, chain(*sets))),
        lambda q: None if (value := of(q)) is None else {title: value},
        **more,
    )


def rouge_value(forget: Sequence[Question]) -> dict[str, float]:
    rows = [right.rouge(q.generation, q.own.text) for q in forget]
    found = {name: right.average(row[name] for row in rows) for name in ROUGE_COLUMNS}
    return {"rouge": found["rougeL_recall"], **found}


def perplexity_record(q: Question) -> dict[str, float]:
    total, count = sum(q.own.logprobs), len(q.own.logprobs)
    return {"perplexity": right.perplexity([q]), "logprob": total, "tokens": count}


def ratio_record(q: Question) -> dict[str, float] | None:
    return None if (ratio := right.truth_ratio(q)) is None else {"truth_ratio": ratio}


CASES = {
    "Perplexity": Case(ours.Perplexity, tokens, right.perplexity, perplexity_record),
    "Probability": mean(ours.Probability, "probability", lambda q: right.probability(q.own)),
    "Probability(normalized)": mean(
        lambda: ours.Probability(normalized=True), "probability", right.normalized_probability, sets=("facts",)
    ),
    "ParaphraseProbability": mean(
        ours.ParaphraseProbability,
        "paraphrase_probability",
        lambda q: None if q.paraphrase is None else right.probability(q.paraphrase),
    ),
    "TruthRatio": Case(ours.TruthRatio, tokens, right.forget_truth_ratio, ratio_record),
    "TruthRatio(forget=False)": Case(
        lambda: ours.TruthRatio(forget=False),
        tokens,
        right.kept_truth_ratio,
        ratio_record,
        sets=("facts",),
    ),
    "ChoiceAccuracy": mean(
        ours.ChoiceAccuracy, "choice_accuracy", right.choice_accuracy, sets=("facts",), counts_eos=False
    ),
    "ExactMemorization": mean(
        ours.ExactMemorization, "exact_memorization", lambda q: right.exact_memorization(q.own), counts_eos=False
    ),
    "ExtractionStrength": mean(
        ours.ExtractionStrength, "extraction_strength", lambda q: right.extraction_strength(q.own), counts_eos=False
    ),
    "VerbatimMemorization": mean(
        ours.VerbatimMemorization,
        "verbatim_memorization",
        lambda q: float(q.generation == q.own.text),
        texts,
        counts_eos=None,
    ),
    "ROUGE": Case(ours.ROUGE, texts, rouge_value, lambda q: right.rouge(q.generation, q.own.text), counts_eos=None),
    "UnstemmedROUGE": mean(
        ours.UnstemmedROUGE,
        "rougeL_f1_unstemmed",
        lambda q: right.rouge(q.generation, q.own.text)["rougeL_f1"],
        texts,
        counts_eos=None,
    ),
    "ShortAnswer": mean(
        ours.ShortAnswer,
        "short_answer",
        lambda q: None if q.short is None else float(q.short.lower() in q.generation.lower()),
        short_answers,
        counts_eos=None,
    ),
    "GradientNorm": mean(ours.GradientNorm, "mia_grad_norm", lambda q: -q.norm, norms, counts_eos=None),
    "ForgetQuality": Case(ours.ForgetQuality, tokens, right.forget_quality),
    "ModelUtility": Case(
        lambda: ours.ModelUtility({name: TRAITS[name] for name in ("retain", "facts")}),
        of_a_set,
        right.model_utility,
        sets=("retain", "facts"),
    ),
    "AnswerLength": mean(AnswerLength, "answer_length", lambda q: len(q.own.labels), counts_eos=False),
}
for _attack, _score in right.ATTACKS.items():
    CASES[f"MembershipScore({_attack})"] = mean(
        lambda attack=_attack: ours.MembershipScore(attack), TITLES[_attack], _score, with_reference
    )
    CASES[f"MembershipInference({_attack})"] = Case(
        lambda attack=_attack: ours.MembershipInference(attack),
        membership,
        lambda forget, holdout, score=_score: right.auroc([*map(score, forget)], [*map(score, holdout)]),
        sets=("forget", "holdout"),
    )


def find_case(name: str, classifier: str) -> Case:
    """Return a metric of `NAMES`; Fluency needs a classifier."""
    if name != "Fluency":
        return CASES[name]
    from metrics.classifier import probability_of  # it loads transformers

    return mean(
        lambda: ours.Fluency(classifier, batch_size=2),
        "fluency",
        lambda q: probability_of(classifier, "clean", q.generation),
        texts,
        counts_eos=None,
    )


NAMES = (*CASES, "Fluency")


def feed(case: Case, metric: Any, share: Share, **layout: Any) -> Any:
    """Update a metric with some batches, and return it."""
    for name, questions in share:
        metric.update(*case.arguments(name, questions, **layout))
    return metric


def numbers(value: Any) -> Any:
    """Return what compute returned as plain numbers."""
    return {name: v.item() for name, v in value.items()} if isinstance(value, Mapping) else value.item()


# ---- the suite --------------------------------------------------------------------------------------------------

OWN_METRICS = ["metrics.harness.AnswerLength", {"class_path": "metrics.harness.WordCount"}]


def full_suite(reference: Evaluation) -> EvaluationSuite:
    """Every metric but Fluency, which has a case of its own, on all sets."""
    names = [name for name in ours.CATALOGUE if name != "fluency"]
    return EvaluationSuite(TRAITS, [*names, *OWN_METRICS], reference)


def feed_suite(suite: EvaluationSuite, share: Share) -> EvaluationSuite:
    """Feed a suite as validation_step does, which has no gradients of a filler."""
    for name, questions in share:
        once = list({q.id: q for q in questions}.values())
        suite.update(name, *make_batch(questions))
        generated, answers, ids = texts(name, once)
        suite.update_texts(name, ids, generated, answers, [f"{i}?" for i in ids], [q.short for q in once])
        if once:
            suite.update_gradients(name, *norms(name, once))
    return suite


def retain_reference() -> Evaluation:
    """Records of another model: it says of one set what ours says of another."""
    swapped = {"forget": SETS["retain"], "holdout": SETS["holdout"]}
    return feed_suite(EvaluationSuite({name: TRAITS[name] for name in swapped}), list(swapped.items())).compute()


# ---- what each of two processes does ----------------------------------------------------------------------------


def measure_everything(rank: int, classifier: str, reference: Evaluation) -> dict[str, dict[str, Any]]:
    """Return for each deal the value and the records of every metric, and the suite's evaluation."""
    return {name: _measure(rank, name, classifier, reference) for name in DEALS}


def _measure(rank: int, name: str, classifier: str, reference: Evaluation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for title in NAMES:
        case = find_case(title, classifier)
        found[title] = value_and_records(feed(case, case.make(), deal(name, case.sets)[rank]))
    suite = feed_suite(full_suite(reference), deal(name, list(SETS))[rank])
    found["suite"] = suite.compute(3, intervals=name == next(iter(DEALS)))
    return found


def value_and_records(metric: Any) -> tuple[Any, Any]:
    """Return what compute returns, and the records of a metric that has them, over all processes."""
    value = numbers(metric.compute())
    if not isinstance(metric, ours.ExampleMetric):
        return value, None
    with metric.sync_context() if torch.distributed.is_initialized() else nullcontext():
        return value, metric.per_example()
