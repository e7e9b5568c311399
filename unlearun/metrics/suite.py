"""All metrics of all evaluated sets, fed from one forward and at most one generation.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, distributed, nn

from unlearun.data import OWN, Batch
from unlearun.metrics.catalogue import ALL, Choice, SetTraits, choose, is_custom, make_metrics
from unlearun.metrics.example_metric import ExampleMetric, TextMetric
from unlearun.metrics.membership import GradientNorm
from unlearun.ops import TokenStats
from unlearun.records import NEED_REFERENCE, Evaluation, offers, summarise


class EvaluationSuite(nn.Module):
    """Metrics for each evaluated set.

    Args:
        sets: The names of the sets, and what their rows have.
        metrics: Names, dotted paths of classes, or mappings of ``class_path`` and ``init_args``; None for all that the
            data allow.
        reference: Records of a model that never saw the forget set, known to fit.

    Raises:
        UnlearunError: A metric does not exist or lacks its data.
    """

    def __init__(
        self,
        sets: Mapping[str, SetTraits],
        metrics: Sequence[Choice] | None = None,
        reference: Evaluation | None = None,
    ) -> None:
        super().__init__()
        # A ModuleDict does not take every name, so the sets are numbered inside.
        self.sets = tuple(sets)
        self.all_chosen = metrics is None
        self.all_and_more = metrics is not None and ALL in metrics
        self.choices = choose(metrics, sets, frozenset() if reference is None else offers(reference))
        self.reference = reference
        self.metrics = nn.ModuleList(
            nn.ModuleList(make_metrics(self.choices, name, traits)) for name, traits in sets.items()
        )
        self._texts: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in self.sets}

    # ---- what must be run -----------------------------------------------------------------------------------

    def needed(self, name: str, batch: Batch) -> Batch:
        """Return the rows of a batch that the metrics of its set read.

        Args:
            name: The set.
            batch: Rows with all answers to their questions.
        """
        if batch.kind is None or any(metric.other_answers for metric in self.of(name)):
            return batch
        return batch.select(batch.kind == OWN)

    def needs_stats(self, name: str) -> bool:
        """Say whether any metric of a set reads token statistics."""
        return any(not isinstance(metric, (TextMetric, GradientNorm)) for metric in self.of(name))

    def needs_texts(self, name: str) -> bool:
        """Say whether any metric of a set reads what the model says by itself."""
        return any(isinstance(metric, TextMetric) for metric in self.of(name))

    def needs_gradients(self, name: str) -> bool:
        """Say whether any metric of a set reads the gradients of single examples."""
        return any(isinstance(metric, GradientNorm) for metric in self.of(name))

    # ---- feeding --------------------------------------------------------------------------------------------

    def update(self, name: str, stats: TokenStats, batch: Batch) -> None:
        """Feed all metrics of a set that read token statistics.

        Args:
            name: The set.
            stats: ``(B, T)`` statistics of a batch's tokens.
            batch: Its rows.
        """
        for metric in self.of(name):
            if not isinstance(metric, (TextMetric, GradientNorm)):
                metric.update(stats, batch)

    def update_texts(
        self,
        name: str,
        example_id: Sequence[int],
        generated: Sequence[str],
        answers: Sequence[str],
        questions: Sequence[str | None] | None = None,
        short_answers: Sequence[str | None] | None = None,
    ) -> None:
        """Feed all metrics of a set that read texts, and keep the texts for the records.

        Args:
            name: The set.
            example_id: B example ids.
            generated: B greedy continuations.
            answers: B answers.
            questions: B questions; None of plain texts.
            short_answers: B short answers, None where there is none.
        """
        questions = [None] * len(answers) if questions is None else questions
        shorts = [None] * len(answers) if short_answers is None else short_answers
        references: dict[str, Sequence[str | None]] = {"answer": answers, "short_answer": shorts}
        for metric in self.of(name):
            if isinstance(metric, TextMetric):
                rows = zip(generated, references[metric.reads], example_id, strict=True)
                known = [(text, reference, key) for text, reference, key in rows if reference is not None]
                metric.update([row[0] for row in known], [row[1] for row in known], [row[2] for row in known])
        for key, question, answer, text in zip(example_id, questions, answers, generated, strict=True):
            self._texts[name][int(key)] = {"question": question, "answer": answer, "generation": text}

    def update_gradients(self, name: str, norms: Tensor, example_id: Tensor) -> None:
        """Feed the metric that reads gradients.

        Args:
            name: The set.
            norms: ``(B,)`` lengths of the gradients of single examples.
            example_id: ``(B,)`` which.
        """
        for metric in self.of(name):
            if isinstance(metric, GradientNorm):
                metric.update(norms, example_id)

    # ---- results --------------------------------------------------------------------------------------------

    def compute(self, step: int = 0, intervals: bool = True) -> Evaluation:
        """Compute and reset everything; under several processes each of them must call this.

        Args:
            step: After how many optimizer steps this is.
            intervals: Whether to compute confidence intervals.

        Returns:
            Records and values over all processes.
        """
        result = self.collect(step)
        summarise(result, self.reference, [metric.score for metric in self._custom()], intervals)
        self.reset()
        return result

    def collect(self, step: int = 0) -> Evaluation:
        """Return the records of all processes, without any value made of them."""
        names = [choice if isinstance(choice, str) else str(choice["class_path"]) for choice in self.choices]
        # Records may meet a retain reference later: empty means all, and who chose all and more chose that, too.
        later = NEED_REFERENCE if self.all_and_more else ()
        result = Evaluation(step, metrics=[] if self.all_chosen else list(dict.fromkeys([*names, *later])))
        for name in self.sets:
            examples: dict[int, dict[str, Any]] = {}
            for key, texts in _gathered(self._texts[name]).items():
                examples.setdefault(key, {}).update(texts)
            for metric in self.of(name):
                with metric.sync_context():
                    for key, record in metric.per_example().items():
                        examples.setdefault(key, {}).update(record)
            result.examples[name] = {str(key): examples[key] for key in sorted(examples)}
        return result

    def reset(self) -> None:
        """Forget all that was fed."""
        for name in self.sets:
            self._texts[name] = {}
            for metric in self.of(name):
                metric.reset()

    def of(self, name: str) -> list[ExampleMetric]:
        """Return the metrics of a set."""
        metrics: Any = self.metrics[self.sets.index(name)]
        return list(metrics)

    def _custom(self) -> list[ExampleMetric]:
        metrics = [metric for name in self.sets for metric in self.of(name) if is_custom(metric)]
        return list({metric.title: metric for metric in metrics}.values())


def _gathered(texts: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the texts of all processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return texts
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, texts)
    return {key: value for share in shares for key, value in share.items()}
