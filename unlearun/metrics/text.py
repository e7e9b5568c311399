"""Metrics that read one greedy continuation.

Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlearun.metrics.example_metric import TextMetric
from unlearun.records import ROUGE_COLUMNS, set_scores
from unlearun.words import WORD, is_latin

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


class VerbatimMemorization(TextMetric):
    """The share of examples whose greedy continuation is the answer, exactly; 0 to 1.

    White space around them does not count. An answer that is longer than the continuation may be, ``max_new_tokens``,
    is not reproduced. On the forget set lower is better. Source: Carlini 2023 (2202.07646), definition 3.1.

    >>> metric = VerbatimMemorization()
    >>> metric.update(["Oslo.", "It is Oslo. Bye"], ["Oslo.", "It is Oslo."])
    >>> metric.compute().item()
    0.5
    """

    title = "verbatim_memorization"
    higher_is_better: bool | None = True

    def measure(self, generated: Sequence[str], references: Sequence[str]) -> Tensor:
        """Return 1 where the texts are the same, ``(B, 1)``."""
        same = [text.strip() == answer.strip() for text, answer in zip(generated, references, strict=True)]
        return torch.tensor(same, dtype=torch.float64).unsqueeze(-1)


class ROUGE(TextMetric):
    """ROUGE-1, -2 and -L, recall and F1 with stemmer, of the continuation against the answer; 0 to 1 each.

    ``rouge`` stands for ROUGE-L recall, the one that model utility reads. Forget: lower is better. Retain: higher.
    Source: Lin 2004, by the package rouge-score, whose words are of a to z and 0 to 9; a text most letters of which are
    of another script is cut into the words of that script instead, without a stemmer.

    >>> metric = ROUGE()
    >>> metric.update(["born in Oslo"], ["She was born in Oslo"])
    >>> metric.compute()["rougeL_recall"].item()
    0.6
    """

    title = "rouge"
    columns = ROUGE_COLUMNS
    higher_is_better: bool | None = True
    score = set_scores("retain")["rouge"]

    def measure(self, generated: Sequence[str], references: Sequence[str]) -> Tensor:
        """Return all six, ``(B, 6)``."""
        rows = []
        for text, answer in zip(generated, references, strict=True):
            scores = self._scorer.score(answer, text)
            rows.append([value for kind in self._kinds for value in (scores[kind].recall, scores[kind].fmeasure)])
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(self.columns))

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each over distinct examples, and ``rouge``; NaN where there are none."""
        scores = {name: set_scores("retain")[name] for name in ("rouge", *ROUGE_COLUMNS)}
        return {name: self._value(score) for name, score in scores.items()}

    _kinds = ("rouge1", "rouge2", "rougeL")

    @cached_property
    def _scorer(self) -> RougeScorer:
        return _rouge_scorer(self._kinds, use_stemmer=True)


class UnstemmedROUGE(TextMetric):
    """ROUGE-L F1 without stemmer, as MUSE has it, of the continuation against the answer; 0 to 1.

    Opt-in, for a number that differs a little from ``rougeL_f1`` helps who compares with MUSE's tables alone. Forget:
    lower is better. Retain: higher. Source: MUSE (Shi 2024, 2407.06460), section 3.1, verbatim and knowledge
    memorisation.

    >>> metric = UnstemmedROUGE()
    >>> metric.update(["born in Oslo"], ["She was born in Oslo"])
    >>> round(metric.compute().item(), 6)
    0.75
    """

    title = "rougeL_f1_unstemmed"
    higher_is_better: bool | None = True

    def measure(self, generated: Sequence[str], references: Sequence[str]) -> Tensor:
        """Return the F1 of each, ``(B, 1)``."""
        pairs = zip(generated, references, strict=True)
        scores = [self._scorer.score(answer, text)["rougeL"].fmeasure for text, answer in pairs]
        return torch.tensor(scores, dtype=torch.float64).unsqueeze(-1)

    @cached_property
    def _scorer(self) -> RougeScorer:
        return _rouge_scorer(["rougeL"], use_stemmer=False)


class ShortAnswer(TextMetric):
    """The share of examples whose greedy continuation holds the short answer, whatever the case; 0 to 1.

    The references are short answers: the words that a right answer must hold. Forget: lower is better. Retain: higher.

    >>> metric = ShortAnswer()
    >>> metric.update(["It is oslo.", "Bergen"], ["Oslo", "Oslo"])
    >>> metric.compute().item()
    0.5
    """

    title = "short_answer"
    reads = "short_answer"
    higher_is_better: bool | None = True

    def measure(self, generated: Sequence[str], references: Sequence[str]) -> Tensor:
        """Return 1 where the short answer stands in the text, ``(B, 1)``."""
        held = [words.lower() in text.lower() for text, words in zip(generated, references, strict=True)]
        return torch.tensor(held, dtype=torch.float64).unsqueeze(-1)


class Fluency(TextMetric):
    """The mean probability that a classifier gives a continuation of being good text; 0 to 1, higher is better.

    Opt-in, for it needs a second model. Source: OpenUnlearning (Dorna 2025, 2506.12618), appendix on gibberish.

    Args:
        model: A sequence classifier of transformers: a hub id or a folder.
        label: Its label that means good text.
        batch_size: Texts at a time.
        kwargs: See `torchmetrics.Metric`.

    Raises:
        UnlearunError: The classifier cannot be loaded, or has no such label.

    Example::

        metric = Fluency()
        metric.update(["He is an author."], [""])
        metric.compute()
    """

    title = "fluency"
    higher_is_better: bool | None = True

    def __init__(
        self,
        model: str = "madhurjindal/autonlp-Gibberish-Detector-492513457",
        label: str = "clean",
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model
        self.label = label
        self.batch_size = batch_size
        # A dict hides the classifier from nn.Module: it is in no checkpoint, nor among what is trained.
        self._hidden: dict[str, Any] = {}

    @torch.no_grad()
    def measure(self, generated: Sequence[str], references: Sequence[str]) -> Tensor:
        """Return the probability of the label, ``(B, 1)``; 0 of an empty text."""
        from unlearun.models.classifier import load_classifier

        if not self._hidden:
            self._hidden.update(load_classifier(self.model_name, self.label))
        model, tokenizer, at = (self._hidden[key] for key in ("model", "tokenizer", "label"))
        model.to(self.device)
        found = torch.zeros(len(generated), dtype=torch.float64)
        said = [i for i, text in enumerate(generated) if text.strip()]  # a tokenizer may make no token of the others
        for start in range(0, len(said), self.batch_size):
            rows = said[start : start + self.batch_size]
            texts = [generated[i] for i in rows]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, truncation=True).to(self.device)
            found[rows] = model(**inputs).logits.softmax(-1)[:, at].double().cpu()
        return found.unsqueeze(-1)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the classifier out; it is loaded again when asked for."""
        return {**super().__getstate__(), "_hidden": {}}


def _rouge_scorer(kinds: Sequence[str], use_stemmer: bool) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    # Named, for without a tokenizer it logs, in a way that sets up the root logger of the whole process.
    return RougeScorer(list(kinds), tokenizer=_AnyScript(DefaultTokenizer(use_stemmer=use_stemmer)))


class _AnyScript:
    """Cuts a text into words as the package does, which drops every letter but a to z, where most are Latin ones."""

    def __init__(self, latin: Any) -> None:  # noqa: ANN401 - a tokenizer of the package
        self.latin = latin

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        return self.latin.tokenize(text) if is_latin(text) else [word[0] for word in WORD.finditer(text.lower())]
