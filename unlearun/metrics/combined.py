"""Metrics made of several others: forget quality, model utility, membership inference.

Each feeds the metrics it is made of, and takes its value from their records as every evaluation does.
Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.wrappers.abstract import WrapperMetric

from unlearun.data import Batch
from unlearun.metrics.catalogue import SetTraits
from unlearun.metrics.membership import Attack, MembershipScore
from unlearun.metrics.suite import EvaluationSuite
from unlearun.ops import TokenStats
from unlearun.records import auroc, summarise


class CombinedMetric(WrapperMetric):
    """Base of metrics made of several others.

    Args:
        title: The name of the value in an evaluation's summary.
        sets: What is measured, and what the rows of each set may have.

    Attributes:
        parts: What the last value was made of.
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool | None = True

    def __init__(self, title: str, sets: Mapping[str, SetTraits]) -> None:
        super().__init__()
        self.title = title
        self.suite = EvaluationSuite(sets, [title])
        self.parts: list[str] = []

    def compute(self) -> Tensor:
        """Return the value over distinct examples of all processes; NaN where there are none."""
        found = self.suite.collect()
        summarise(found, intervals=False)
        self.parts = found.parts.get(self.title, [])
        return torch.tensor(found.summary.get(self.title, float("nan")), dtype=torch.float64)

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - torchmetrics' signature
        """Take in one batch and return the value so far."""
        self.update(*args, **kwargs)
        return self.compute()

    def reset(self) -> None:
        """Forget all that was fed."""
        self.suite.reset()
        super().reset()

    def plot(self, val: Any = None, ax: Any = None) -> Any:  # noqa: ANN401 - matplotlib's types
        """Plot one value, or several over time; see `ExampleMetric.plot`."""
        return self._plot(val, ax)


class ForgetQuality(CombinedMetric):
    """How little is left of the forget set, without a second model; 0 to 1, higher is better.

    The harmonic mean of 1 - exact memorization, 1 - extraction strength, 1 - probability of the paraphrase (or of the
    answer), and 1 - p_c/(p_c + p_w), where p = exp(S/n), p_c is the paraphrase's (else the answer's) and p_w the
    geometric mean over wrong answers; those that the data allow. Source: after OpenUnlearning (Dorna 2025, 2506.12618).

    >>> ids = torch.tensor([[1, 2]])
    >>> metric = ForgetQuality()
    >>> batch = Batch(ids, torch.ones_like(ids), torch.tensor([[-100, 2]]), example_id=torch.tensor([0]))
    >>> metric.update(TokenStats(torch.tensor([[1.0, 0.5]]).log(), torch.tensor([[False, False]])), batch)
    >>> round(metric.compute().item(), 3), metric.parts
    (0.75, ['1-exact_memorization', '1-extraction_strength', '1-probability'])
    """

    def __init__(self) -> None:
        super().__init__("forget_quality", {"forget": SetTraits(paraphrase=True, wrong=True)})

    def update(self, stats: TokenStats, batch: Batch) -> None:
        """Take in one batch of the forget set.

        Args:
            stats: ``(B, T)`` statistics of its tokens.
            batch: Its rows, all answers to a question together.
        """
        self.suite.update("forget", stats, batch)


class ModelUtility(CombinedMetric):
    """What is left of everything else; 0 to 1, higher is better.

    The harmonic mean, over retain and every utility set, of probability, ROUGE-L recall and truth ratio, those that
    the data allow. Source: TOFU (Maini 2024, 2401.06121), section 2.2.

    Args:
        sets: The retain and the utility sets by name, and what their rows have.

    >>> ids = torch.tensor([[1, 2]])
    >>> metric = ModelUtility({"retain": SetTraits()})
    >>> batch = Batch(ids, torch.ones_like(ids), torch.tensor([[-100, 2]]), example_id=torch.tensor([0]))
    >>> stats = TokenStats(torch.tensor([[1.0, 0.5]]).log(), torch.tensor([[False, False]]))
    >>> metric.update("retain", stats, batch, generated=["in Oslo"], answers=["Oslo"])
    >>> round(metric.compute().item(), 3), metric.parts
    (0.667, ['retain/probability', 'retain/rouge'])
    """

    def __init__(self, sets: Mapping[str, SetTraits]) -> None:
        super().__init__("model_utility", sets)

    def update(
        self,
        name: str,
        stats: TokenStats,
        batch: Batch,
        generated: Sequence[str] | None = None,
        answers: Sequence[str] | None = None,
    ) -> None:
        """Take in one batch of a set.

        Args:
            name: The set.
            stats: ``(B, T)`` statistics of its tokens.
            batch: Its rows, with ``example_id``, all answers to a question together.
            generated: Greedy continuations, one for each distinct example in the order of the batch.
            answers: The answers they are compared with.
        """
        self.suite.update(name, stats, batch)
        if generated is not None and answers is not None:
            ids = [] if batch.example_id is None else batch.example_id[batch.mask.any(-1)].tolist()
            self.suite.update_texts(name, list(dict.fromkeys(ids)), generated, answers)


class MembershipInference(WrapperMetric):
    """The AUROC of telling forget rows (members) from holdout rows; 0.5 is best.

    1: fully remembered. 0.5: indistinguishable. Under 0.5: over-unlearned. Ties count half.

    Args:
        attack: The score, see `MembershipScore`.

    >>> ids = torch.tensor([[1, 2]])
    >>> batch = Batch(ids, torch.ones_like(ids), torch.tensor([[-100, 2]]))
    >>> metric = MembershipInference()
    >>> metric.update(TokenStats(torch.tensor([[0.0, -1.0]]), torch.tensor([[False, True]])), batch, member=True)
    >>> metric.update(TokenStats(torch.tensor([[0.0, -2.0]]), torch.tensor([[False, True]])), batch, member=False)
    >>> metric.compute().item()
    1.0
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool | None = None

    def __init__(self, attack: Attack = "loss") -> None:
        super().__init__()
        self.members = MembershipScore(attack)
        self.others = MembershipScore(attack)

    def update(self, stats: TokenStats, batch: Batch, member: bool, reference: Tensor | None = None) -> None:
        """Take in one batch.

        Args:
            stats: ``(B, T)`` statistics of its tokens.
            batch: Its rows; zlib needs their texts.
            member: Whether these are rows to forget, or rows that the model never saw.
            reference: ``(B,)`` S_ref, for the reference attack.
        """
        (self.members if member else self.others).update(stats, batch, reference=reference)

    def compute(self) -> Tensor:
        """Return the area over distinct examples of all processes; NaN where there are none of a kind."""
        scores = []
        for metric in (self.members, self.others):
            with metric.sync_context():
                scores.append(metric.distinct()[1][:, 0].double().cpu().numpy())
        area = auroc(*scores)[0] if all(len(found) for found in scores) else float("nan")
        return torch.tensor(area, dtype=torch.float64)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take in one batch and return the value so far."""
        self.update(*args, **kwargs)
        return self.compute()

    def reset(self) -> None:
        """Forget all that was fed."""
        self.members.reset()
        self.others.reset()
        super().reset()

    def plot(self, val: Any = None, ax: Any = None) -> Any:  # noqa: ANN401 - matplotlib's types
        """Plot one value, or several over time; see `ExampleMetric.plot`."""
        return self._plot(val, ax)
