"""Ask again and again: what the likeliest answer hides may come out in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from unlearun.attacks.base import Attack, Outcome
from unlearun.attacks.victim import Victim
from unlearun.data import Example
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods import UnlearningMethod
from unlearun.records import FORGET, Evaluation, only, summarise

METRICS = ("verbatim_memorization", "rouge")
SHORT = "short_answer"


class SampledAnswers(UnlearningMethod):
    """Answers by drawing tokens instead of taking the likeliest.

    Args:
        model: See `UnlearningMethod`.
        temperature: What scores are divided by before tokens are drawn.
        kwargs: See `UnlearningMethod`.
    """

    def __init__(self, model: Any, temperature: float = 1.0, **kwargs: Any) -> None:  # noqa: ANN401 - see the base
        super().__init__(model, **kwargs)
        self.temperature = temperature

    def answer(self, name: str, examples: Sequence[Example]) -> list[str]:
        """See `EvaluatedModule`."""
        return self.answers(name, examples, self.temperature)


class Sample(Attack):
    """Draws several answers to each question, and takes the worst of them for each.

    It is measured by the share of rows of which one sample is the answer, exactly, and by the ROUGE-L recall of the
    sample that comes nearest; greedy answers are what both are compared with. The best of several samples comes nearer
    than one by chance alone, which the retain model shows.

    Args:
        temperatures: What scores are divided by before tokens are drawn; a way of its own each.
        samples: How many answers to each question.

    Raises:
        UnlearunError: A temperature is not above 0, or there are no samples.
    """

    measured: ClassVar[tuple[str, str]] = ("verbatim_memorization", "rougeL_recall")

    def __init__(self, temperatures: Sequence[float] = (0.7, 1.0), samples: int = 8) -> None:
        check_bounds(samples=(samples, 1))
        if not temperatures:
            raise UnlearunError("temperatures is empty; name one, such as 1.0")
        if wrong := [one for one in temperatures if not 0 < one < float("inf")]:
            raise UnlearunError(f"a temperature is {wrong[0]}; it must be above 0 (0 is greedy, and no sample)")
        self.temperatures = tuple(dict.fromkeys(temperatures))
        self.samples = samples

    def run(self, victim: Victim) -> Outcome:
        """See `Attack`."""
        short = any(example.item.short_answer is not None for example in victim.forget_examples)
        data = victim.forget_data([*METRICS, *([SHORT] if short else [])])
        outcome = Outcome()
        method = victim.load(SampledAnswers)
        for temperature in self.temperatures:
            method.temperature = temperature
            drawn = [only(victim.measure(method, data), FORGET) for _ in range(self.samples)]
            outcome.variants[f"{self.samples} samples at {temperature:g}"] = worst(drawn, self.measured[1])
        return outcome


def worst(drawn: Sequence[Evaluation], by: str) -> Evaluation:
    """Take of each row the highest value of every column, and the texts of the sample that comes nearest.

    Args:
        drawn: An evaluation a sample.
        by: The column that says which comes nearest.
    """
    examples: dict[str, dict[str, Any]] = {}
    for key in drawn[0].examples[FORGET]:
        rows = [one.examples[FORGET][key] for one in drawn]
        nearest = max(rows, key=lambda row: row.get(by, 0.0))
        numbers = {name for name, value in nearest.items() if isinstance(value, (int, float))}
        examples[key] = {**nearest, **{name: max(row[name] for row in rows) for name in numbers}}
    one = Evaluation(drawn[0].step, examples={FORGET: examples}, metrics=drawn[0].metrics)
    one.fingerprint = drawn[0].fingerprint
    summarise(one)
    return one
