"""All metrics of all evaluated sets, fed from one forward.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from unlearun.data import Batch
from unlearun.files import write_whole
from unlearun.metrics.aggregates import forget_quality, model_utility
from unlearun.metrics.example_metric import ExampleMetric
from unlearun.metrics.likelihood import ExactMemorization, Perplexity, Probability
from unlearun.ops import TokenStats

METRICS: tuple[type[ExampleMetric], ...] = (Perplexity, Probability, ExactMemorization)


@dataclass
class Evaluation:
    """What one evaluation found.

    Attributes:
        step: After how many optimizer steps; 0 is before the first.
        summary: Values keyed ``set/metric``, and the aggregates.
        examples: For each set and example id, a value a metric, and texts.
        fingerprint: What was measured on what.
    """

    step: int
    summary: dict[str, float]
    examples: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write it as JSON, whole or not at all; NaN and infinity, which JSON lacks, as null."""
        write_whole(file, json.dumps(_finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False))

    @classmethod
    def read(cls, file: Path) -> Evaluation:
        """Read what `write` wrote; null in the summary is NaN."""
        stored = json.loads(file.read_text(encoding="utf-8"))
        summary = {name: math.nan if value is None else value for name, value in stored.pop("summary").items()}
        return cls(summary=summary, **stored)


class EvaluationSuite(nn.Module):
    """Metrics for each evaluated set.

    Args:
        sets: The names of the sets.
    """

    def __init__(self, sets: Sequence[str]) -> None:
        super().__init__()
        # A ModuleDict does not take every name, so the sets are numbered inside.
        self.sets = tuple(sets)
        self.metrics = nn.ModuleList(nn.ModuleDict({metric.title: metric() for metric in METRICS}) for _ in self.sets)

    def update(self, name: str, stats: TokenStats, batch: Batch) -> None:
        """Feed all metrics of a set.

        Args:
            name: The set.
            stats: ``(B, T)`` statistics of a batch's tokens.
            batch: Its rows.
        """
        for metric in self._of(name):
            metric.update(stats, batch)

    def compute(self, step: int) -> Evaluation:
        """Compute and reset everything; under several processes each of them must call this.

        Args:
            step: After how many optimizer steps this is.

        Returns:
            The values over all processes.
        """
        result = Evaluation(step, {})
        for name in self.sets:
            examples: dict[str, dict[str, Any]] = {}
            for metric in self._of(name):
                result.summary[f"{name}/{metric.title}"] = float(metric.compute())
                with metric.sync_context():
                    for example_id, value in metric.per_example().items():
                        examples.setdefault(str(example_id), {})[metric.title] = value
                metric.reset()
            result.examples[name] = examples
        aggregates = {"forget_quality": forget_quality, "model_utility": model_utility}
        for title, aggregate in aggregates.items():
            found = aggregate(result.summary)
            if found is not None:
                result.fingerprint[f"{title}_parts"] = found[1]
                result.summary[title] = found[0]
        return result

    def _of(self, name: str) -> list[ExampleMetric]:
        metrics = self.metrics[self.sets.index(name)].children()
        return [metric for metric in metrics if isinstance(metric, ExampleMetric)]


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
